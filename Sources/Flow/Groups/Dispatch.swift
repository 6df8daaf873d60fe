/// What one worker is asked to do.
public struct Assignment<Call: WorkerCall>: Sendable {
    public var worker: Int
    public var call: OutgoingCall<Call>
    /// The places in the input of the rows that it has; nil where the input is not shared out by rows.
    public var rows: [Int]?
    /// Whether its answer counts. Of workers that do the same together, the first speaks.
    public var speaks: Bool

    public init(worker: Int, call: OutgoingCall<Call>, rows: [Int]? = nil, speaks: Bool = true) {
        self.worker = worker
        self.call = call
        self.rows = rows
        self.speaks = speaks
    }
}

/// How the input of a call is shared out among a group's workers. Rules are values: those here cover most calls, and one of your own
/// is a closure that says who gets which call.
public struct Dispatch<Input: Sendable, Call: WorkerCall>: Sendable {
    public let assign: @Sendable (Input, GroupMesh) throws -> [Assignment<Call>]

    public init(_ assign: @escaping @Sendable (Input, GroupMesh) throws -> [Assignment<Call>]) { self.assign = assign }
}

extension Dispatch where Input == Call {
    /// The same call on every worker.
    public static var broadcast: Dispatch {
        Dispatch { call, mesh in
            let outgoing = OutgoingCall(call)
            return (0..<mesh.count).map { Assignment(worker: $0, call: outgoing) }
        }
    }

    /// On the first worker alone.
    public static var rankZero: Dispatch { only(0) }

    /// On one worker alone.
    public static func only(_ worker: Int) -> Dispatch {
        Dispatch { call, _ in [Assignment(worker: worker, call: OutgoingCall(call))] }
    }
}

extension Dispatch {
    /// Rows shared out among the data parallel workers so that each has about the same work; the others of such a worker's
    /// group get the same rows as it does. A worker may get none.
    ///
    /// - Parameters:
    ///   - work: what a row costs.
    ///   - make: a call from a worker's rows.
    public static func split<Row: Sendable>(
        by work: @escaping @Sendable (Row) -> Double, _ make: @escaping @Sendable ([Row]) throws -> Call
    ) -> Dispatch where Input == [Row] {
        Dispatch { rows, mesh in
            try shared(mesh, BalancedSplit.parts(rows.map(work), count: mesh.size(along: mesh.dataAxes))) { share in
                try make(share.map { rows[$0] })
            }
        }
    }

    /// Row i to data parallel worker i modulo their number, which keeps what a row's place decides.
    public static func deal<Row: Sendable>(
        _ make: @escaping @Sendable ([Row]) throws -> Call
    ) -> Dispatch where Input == [Row] {
        Dispatch { rows, mesh in
            let count = mesh.size(along: mesh.dataAxes)
            let parts = (0..<count).map { Array(stride(from: $0, to: rows.count, by: count)) }
            return try shared(mesh, parts) { share in try make(share.map { rows[$0] }) }
        }
    }

    private static func shared(
        _ mesh: GroupMesh, _ parts: [[Int]], _ make: ([Int]) throws -> Call
    ) throws -> [Assignment<Call>] {
        let calls = try parts.map { OutgoingCall(try make($0)) }
        return (0..<mesh.count).map { worker in
            let part = mesh.place(along: mesh.dataAxes, of: worker)
            return Assignment(
                worker: worker, call: calls[part], rows: parts[part],
                speaks: mesh.isFirst(of: worker, besides: mesh.dataAxes))
        }
    }

    /// One call for each place along an axis, the same for all workers at that place; the first of them speaks.
    public static func each(
        along axis: String, _ make: @escaping @Sendable (Input, _ place: Int) throws -> Call
    ) -> Dispatch {
        Dispatch { input, mesh in
            let calls = try (0..<mesh.size(along: [axis])).map { OutgoingCall(try make(input, $0)) }
            return (0..<mesh.count).map { worker in
                Assignment(
                    worker: worker, call: calls[mesh.coordinate(axis, of: worker)],
                    speaks: mesh.isFirst(of: worker, besides: [axis]))
            }
        }
    }
}

/// Divides rows by their cost.
enum BalancedSplit {
    /// The dearest row first, each to the part that has the least so far (Graham 1969: the greatest sum is at most 4/3 of the
    /// least possible). The same input gives the same division everywhere; a part's rows are in ascending order.
    static func parts(_ costs: [Double], count: Int) -> [[Int]] {
        var parts = [[Int]](repeating: [], count: count), sums = [Double](repeating: 0, count: count)
        for row in costs.indices.sorted(by: { costs[$0] == costs[$1] ? $0 < $1 : costs[$0] > costs[$1] }) {
            var least = 0
            for part in 1..<max(1, count)
            where (sums[part], parts[part].count) < (sums[least], parts[least].count) { least = part }
            parts[least].append(row)
            sums[least] += costs[row]
        }
        return parts.map { $0.sorted() }
    }
}
