import Flow
import Synchronization
import Testing

/// Notes what it is asked to do.
private actor Notebook {
    private(set) var notes: [String] = []
    private var gates: [String: CheckedContinuation<Void, Never>] = [:]
    private var opened: Set<String> = []

    func note(_ text: String) { notes.append(text) }
    func pass(_ gate: String) async {
        if opened.contains(gate) { return }
        await withCheckedContinuation { gates[gate] = $0 }
    }
    func open(_ gate: String) {
        opened.insert(gate)
        gates.removeValue(forKey: gate)?.resume()
    }
}

private struct Note: WorkerCall {
    var text: String
    var gate: String?
    func perform(on worker: Notebook) async throws -> Int {
        if let gate { await worker.pass(gate) }
        await worker.note(text)
        return await worker.notes.count
    }
}

private struct Look: WorkerCall {
    static var waitsItsTurn: Bool { false }
    func perform(on worker: Notebook) async throws -> [String] { await worker.notes }
}

private struct Fail: WorkerCall {
    var error: WorkerCallError
    func perform(on worker: Notebook) async throws -> Done { throw error }
}

private struct Double2: WorkerCall {
    var values: [Int]
    func perform(on worker: Notebook) async throws -> [Int] {
        await worker.note("\(values)")
        return values.map { $0 * 2 }
    }
}

@Suite struct WorkerGroupTests {
    private func group(_ count: Int) -> WorkerGroup<Notebook> {
        WorkerGroup(name: "notes", workers: (0..<count).map { _ in Notebook() })
    }

    private func notebook(_ group: WorkerGroup<Notebook>, _ index: Int) throws -> Notebook {
        try #require(group.endpoints[index] as? LocalEndpoint<Notebook>).worker
    }

    @Test func callsOnOneGroupKeepTheirOrder() async throws {
        let group = group(3)
        let first = try group.issue(Note(text: "a", gate: "go"), .broadcast, .all)
        let rest = try (0..<20).map { try group.issue(Note(text: "\($0)"), .broadcast, .all) }
        #expect(try await group.call(Look()) == [[], [], []])
        for worker in 0..<3 { await (try notebook(group, worker)).open("go") }
        _ = try await first.value
        for call in rest { _ = try await call.value }
        let expected = ["a"] + (0..<20).map { "\($0)" }
        #expect(try await group.call(Look()) == [expected, expected, expected])
    }

    @Test func independentGroupsOverlap() async throws {
        let actor = group(1), critic = group(1)
        let waiting = try notebook(actor, 0)
        async let slow = actor.call(Note(text: "slow", gate: "go"), .broadcast, .first)
        async let fast = critic.call(Note(text: "fast"), .broadcast, .first)
        // Ends only if it does not wait for the other group.
        #expect(try await fast == 1)
        await waiting.open("go")
        #expect(try await slow == 1)
    }

    @Test func aCancelledCallLetsTheNextOnePass() async throws {
        let group = group(1)
        let first = try group.issue(Note(text: "a", gate: "go"), .broadcast, .nothing)
        let dropped = try group.issue(Note(text: "b"), .broadcast, .nothing)
        let last = try group.issue(Note(text: "c"), .broadcast, .nothing)
        dropped.cancel()
        await #expect(throws: CancellationError.self) { try await dropped.value }
        await (try notebook(group, 0)).open("go")
        try await first.value
        try await last.value
        #expect(try await group.call(Look()) == [["a", "c"]])
    }

    @Test func theErrorOfTheWorkerAtFaultIsTold() async throws {
        let group = group(2)
        let blame = WorkerCallError(.failed, "the other one", isConsequence: true)
        let cause = WorkerCallError(.failed, "the disk is full")
        let split = Dispatch<Int, Fail> { _, _ in
            [blame, cause].enumerated().map { Assignment(worker: $0, call: OutgoingCall(Fail(error: $1))) }
        }
        let error = await #expect(throws: WorkerCallError.self) { try await group.call(0, split, .nothing) }
        #expect(error?.message == "the disk is full")
        let alone = WorkerGroup(
            name: "one", endpoints: [LocalEndpoint("one", Notebook())], mesh: .data(1), patience: .zero)
        let told = await #expect(throws: WorkerCallError.self) {
            try await alone.call(Fail(error: blame), .broadcast, .nothing)
        }
        #expect(told?.message == "the other one")
    }

    @Test(arguments: [1, 2, 3, 8])
    func splitRowsComeBackInTheirPlaces(count: Int) async throws {
        let group = group(count), rows = (0..<7).map { ($0 * 37) % 11 }
        let doubled = try await group.call(rows, .split(by: { Double($0) }) { Double2(values: $0) }, .concat())
        #expect(doubled == rows.map { $0 * 2 })
        let dealt = try await group.call(rows, .deal { Double2(values: $0) }, .concat())
        #expect(dealt == rows.map { $0 * 2 })
    }

    @Test func workersOfOneReplicaGetTheSameRowsAndOneSpeaks() async throws {
        let mesh = GroupMesh([.init("data", 2), .init("tensor", 2)], data: ["data"])
        let group = WorkerGroup(
            name: "tp", endpoints: (0..<4).map { LocalEndpoint("\($0)", Notebook()) }, mesh: mesh)
        let rows = [9, 1, 1, 1, 5]
        let doubled = try await group.call(rows, .split(by: { Double($0) }) { Double2(values: $0) }, .concat())
        #expect(doubled == [18, 2, 2, 2, 10])
        #expect(try await group.call(Look()) == [["[9]"], ["[9]"], ["[1, 1, 1, 5]"], ["[1, 1, 1, 5]"]])
    }

    @Test func rulesChooseWorkers() async throws {
        let mesh = GroupMesh([.init("pipeline", 2), .init("data", 2)], data: ["data"])
        let group = WorkerGroup(
            name: "pp", endpoints: (0..<4).map { LocalEndpoint("\($0)", Notebook()) }, mesh: mesh)
        #expect(try await group.call(Note(text: "zero"), .rankZero, .first) == 1)
        #expect(try await group.call(Note(text: "last"), .only(3), .all) == [1])
        let counts = try await group.call(
            "stage", .each(along: "pipeline") { text, place in Note(text: "\(text) \(place)") }, .speakers)
        #expect(counts == [2, 1])
        #expect(
            try await group.call(Look()) == [["zero", "stage 0"], ["stage 0"], ["stage 1"], ["last", "stage 1"]])
        #expect(try await group.call(Note(text: "x"), .broadcast, .reduce { $0 + $1 }) == 3 + 2 + 2 + 3)
        #expect(try await group.call(Note(text: "x"), .broadcast, Collect { $0.map(\.answer).max() }) == 4)
    }

    @Test func aWorkerThatAnswersTooFewRowsIsAnError() async throws {
        let group = group(2)
        await #expect(throws: WorkerCallError.self) {
            try await group.call(
                [1, 2, 3], .deal { Double2(values: Array($0.dropLast())) }, Collect<[Int], [Int]>.concat())
        }
    }

    @Test func sharesAreBalanced() async throws {
        let group = group(4), rows = (1...64).map { $0 * $0 }
        _ = try await group.call(rows, .split(by: { Double($0) }) { Double2(values: $0) }, .concat())
        let sums = try await group.call(Look()).map { notes in
            notes[0].dropFirst().dropLast().split(separator: ", ").compactMap { Int($0) }.reduce(0, +)
        }
        let mean = Double(rows.reduce(0, +)) / 4
        #expect(sums.allSatisfy { Double($0) < 1.01 * mean })
    }
}

@Suite struct GroupMeshTests {
    @Test func placesAlongAxes() {
        let mesh = GroupMesh([.init("pp", 2), .init("dp", 3), .init("tp", 2)], data: ["dp"])
        #expect(mesh.count == 12)
        for worker in 0..<12 {
            #expect(
                mesh.coordinate("pp", of: worker) * 6 + mesh.coordinate("dp", of: worker) * 2
                    + mesh.coordinate("tp", of: worker) == worker)
        }
        #expect(mesh.size(along: ["pp", "tp"]) == 4 && mesh.place(along: ["pp", "tp"], of: 7) == 3)
        #expect(mesh.isFirst(of: 4, besides: ["dp"]) && !mesh.isFirst(of: 7, besides: ["dp"]))
        #expect(mesh.coordinate("none", of: 3) == 0)
    }
}

@Suite struct CallCoderTests {
    private struct Batch: Codable, Equatable {
        var name: String
        var scores: [Double]
        var tokens: PackedRows<Int32>
        var nested: [PackedRows<Float>]
    }
    private let batch = Batch(
        name: "é\n", scores: [.infinity, 1.5, -0.0], tokens: PackedRows([[1, -2], [], [3]]),
        nested: [PackedRows([[0.1, .greatestFiniteMagnitude]]), PackedRows([])])

    @Test func rowsTravelBesideTheText() throws {
        let bytes = try CallCoder.encode(batch)
        #expect(try CallCoder.decode(Batch.self, from: bytes) == batch)
        let nan = try CallCoder.decode(PackedRows<Float>.self, from: CallCoder.encode(PackedRows([[Float.nan]])))
        #expect(nan[0].first?.bitPattern == Float.nan.bitPattern)
    }

    @Test func damagedBytesAreErrors() throws {
        let bytes = try CallCoder.encode(batch)
        for length in 0..<bytes.count {
            #expect(throws: DecodingError.self) { try CallCoder.decode(Batch.self, from: Array(bytes[..<length])) }
        }
        #expect(throws: DecodingError.self) { try CallCoder.decode(Batch.self, from: bytes + [0]) }
        // Any one byte may be wrong: an error or other values, never a trap.
        for place in bytes.indices {
            var other = bytes
            other[place] ^= 0xFF
            _ = try? CallCoder.decode(Batch.self, from: other)
        }
    }
}

@Suite struct RowsStoreTests {
    @Test func rowsAreKeptCheckedAndReleased() throws {
        let store = RowsStore(limit: 10)
        let rows: [[UInt8]] = [[1, 2, 3], [], Array(4...9)]
        let reference = try store.keep(rows, owner: "rollout/0", address: "h:1")
        #expect(reference.byteCount == 9 && store.byteCount == 9)
        let part = reference.selecting([2, 0])
        let pulled = try #require(store.rows(part.id, part.rows.map(\.index)))
        try part.verify(pulled)
        #expect(pulled == [Array(4...9), [1, 2, 3]])
        #expect(throws: WorkerCallError.self) { try part.verify([[4, 5, 6, 7, 8, 0], [1, 2, 3]]) }
        #expect(throws: WorkerCallError.self) { try part.verify([[1, 2, 3]]) }
        #expect(store.rows(part.id, [3]) == nil && store.rows(part.id, [-1]) == nil)
        #expect(throws: WorkerCallError.self) { try store.keep([[1, 2]], owner: "rollout/0", address: "h:1") }
        store.release(reference.id)
        #expect(store.rows(part.id, [0]) == nil && store.byteCount == 0)
    }

    @Test func everyByteCountsInADigest() {
        let bytes = (0..<21).map { UInt8($0) }
        var seen: Set<UInt64> = [RowsReference.digest(bytes)]
        for place in bytes.indices {
            var other = bytes
            other[place] ^= 1
            seen.insert(RowsReference.digest(other))
        }
        seen.insert(RowsReference.digest(bytes.dropLast()))
        seen.insert(RowsReference.digest(bytes + [0]))
        #expect(seen.count == 24)
    }
}
