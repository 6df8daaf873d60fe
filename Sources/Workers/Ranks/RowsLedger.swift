import Flow
import Synchronization

/// What the ranks of a group keep of the rows that the controller has told them, so that it tells them no row twice.
final class RowsLedger: Sendable {
    private struct State {
        var id = 0
        /// Of the rows that are kept: whose they are, and what of them.
        var prompts: [[Int32]] = [], responses: [[Int32]] = [], groups: [Int] = []
        var columns: [RowColumn: [[Float]]] = [:]
        var masks: [[Bool]?]?
    }
    private let state = Mutex(State())

    /// What to send of trajectories for a call that needs `columns` of them; `issue` puts that call behind those before it.
    func send<Result>(
        _ trajectories: [Trajectory], _ columns: Set<RowColumn>, _ issue: (TrainingRows) throws -> Result
    ) rethrows -> Result {
        try state.withLock { state in
            let prompts = trajectories.map(\.prompt.tokens), responses = trajectories.map(\.response)
            let groups = trajectories.map(\.prompt.group)
            // Arrays that are the same memory are equal without a look at their elements.
            let isKnown =
                state.id > 0 && state.groups == groups && state.responses == responses && state.prompts == prompts
            if !isKnown { state = State(id: state.id + 1, prompts: prompts, responses: responses, groups: groups) }
            var rows = TrainingRows(id: state.id)
            if !isKnown { rows.sequences = .init(trajectories) }
            for column in RowColumn.allCases where columns.contains(column) {
                if column == .responseMask {
                    let masks = trajectories.map(\.responseMask)
                    guard masks.contains(where: { $0 != nil }) else { continue }
                    if state.masks == masks {
                        rows.kept.append(column)
                    } else {
                        rows.take(column, trajectories)
                        state.masks = masks
                    }
                } else if let own = column.rows(of: trajectories) {
                    if state.columns[column] == own {
                        rows.kept.append(column)
                    } else {
                        rows.take(column, trajectories)
                        state.columns[column] = own
                    }
                }
            }
            return try issue(rows)
        }
    }

    /// The ranks keep this column as they computed it, of the rows `id`.
    func keeps(_ column: RowColumn, _ rows: [[Float]], of id: Int?) {
        state.withLock { state in
            guard state.id == id else { return }
            state.columns[column] = rows
        }
    }

    /// Which rows are kept now.
    var current: Int { state.withLock { $0.id } }
}

/// The rows that a rank keeps.
final class KeptRows: Sendable {
    private let rows = Mutex<TrainingRows?>(nil)

    /// All of the rows that a call needs, which are kept from now on in place of others.
    /// - Throws: ``WorkerError`` where the call counts on rows that are not here.
    func complete(_ given: TrainingRows) throws -> TrainingRows {
        guard let id = given.id else { return given }
        return try rows.withLock { rows in
            var whole = given
            if given.sequences == nil || !given.kept.isEmpty {
                guard let rows, rows.id == id else {
                    throw WorkerError(
                        .ranks,
                        "a call counts on rows \(id) of an earlier one, and this rank keeps \(rows?.id.map(String.init) ?? "none"): a fault of Fledge"
                    )
                }
                whole.complete(from: rows)
            }
            var next = whole
            if let rows, rows.id == id { next.add(rows) }
            next.kept = []
            rows = next
            return whole
        }
    }

    /// Keeps a column that was computed of the rows `id`.
    func keep(_ column: RowColumn, _ values: PackedRows<Float>, of id: Int?) {
        rows.withLock { if $0?.id == id, id != nil { $0?[column] = values } }
    }
}
