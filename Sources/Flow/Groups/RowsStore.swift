import Synchronization

/// Rows that a worker keeps for others to pull.
public final class RowsStore: Sendable {
    private struct State {
        var next: UInt64 = 1
        var kept: [UInt64: [[UInt8]]] = [:]
        var bytes = 0
    }
    private let state = Mutex(State())
    /// Bytes of all rows together.
    public let limit: Int

    public init(limit: Int = 8 << 30) { self.limit = limit }

    public var byteCount: Int { state.withLock { $0.bytes } }

    /// Keeps rows until they are released.
    /// - Throws: ``WorkerCallError`` with code `tooLarge` where there is no room.
    public func keep(_ rows: [[UInt8]], owner: String, address: String) throws(WorkerCallError) -> RowsReference {
        let facts = rows.enumerated().map { index, row in
            RowsReference.Row(index: index, byteCount: row.count, digest: RowsReference.digest(row))
        }
        let size = facts.reduce(0) { $0 + $1.byteCount }
        let id: UInt64? = state.withLock { state in
            guard state.bytes + size <= limit else { return nil }
            defer { state.next += 1 }
            state.kept[state.next] = rows
            state.bytes += size
            return state.next
        }
        guard let id else {
            throw WorkerCallError(
                .tooLarge,
                "\(owner) keeps \(byteCount) bytes of rows already and has no room for \(size) more (limit \(limit)): "
                    + "release rows that nobody needs", worker: owner)
        }
        return RowsReference(owner: owner, address: address, id: id, rows: facts)
    }

    /// Rows by their places; nil for an id that is not kept or places that are not there.
    public func rows(_ id: UInt64, _ places: [Int]) -> [[UInt8]]? {
        state.withLock { state in
            guard let kept = state.kept[id], places.allSatisfy(kept.indices.contains) else { return nil }
            return places.map { kept[$0] }
        }
    }

    /// Drops rows; an id that is not there is no mistake.
    public func release(_ id: UInt64) {
        state.withLock { state in
            guard let rows = state.kept.removeValue(forKey: id) else { return }
            state.bytes -= rows.reduce(0) { $0 + $1.count }
        }
    }
}

extension RowsReference {
    /// - Throws: ``WorkerCallError`` with code `missingRows` where `rows` are not what the owner made.
    public func verify(_ rows: [[UInt8]]) throws(WorkerCallError) {
        guard rows.count == self.rows.count else {
            throw WorkerCallError(
                .missingRows, "\(owner) sent \(rows.count) rows of \(self.rows.count)", worker: owner)
        }
        for (fact, row) in zip(self.rows, rows)
        where fact.byteCount != row.count || fact.digest != RowsReference.digest(row) {
            throw WorkerCallError(
                .missingRows, "row \(fact.index) of rows \(id) came damaged from \(owner): another digest or length",
                worker: owner)
        }
    }
}
