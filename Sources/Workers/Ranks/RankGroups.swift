import Config
import Flow

/// The ranks of a run by the pools that they are in, as the controller calls them; one pool where all play all roles.
struct RankGroups: Sendable {
    struct Pool: Sendable {
        /// nil where there is but one pool.
        let name: String?
        let roles: Set<Role>
        let group: WorkerGroup<RankWorker>
    }

    let pools: [Pool]

    /// - Throws: ``WorkerError`` where the pools do not make up the ranks.
    init(_ ranks: WorkerGroup<RankWorker>, _ mapping: PoolMapping?) throws(WorkerError) {
        guard let mapping else {
            pools = [Pool(name: nil, roles: Set(Role.allCases), group: ranks)]
            return
        }
        try mapping.check(ranks: ranks.count)
        pools = mapping.pools.map { pool in
            Pool(
                name: pool.name, roles: pool.roles,
                group: WorkerGroup(
                    name: pool.name, endpoints: Array(ranks.endpoints[pool.ranks]), mesh: .data(pool.ranks.count)))
        }
    }

    /// Whether the run has both roles, on different pools.
    func parts(_ one: Role, _ other: Role) -> Bool {
        guard let one = place(of: one), let other = place(of: other) else { return false }
        return one != other
    }

    /// Which of ``pools`` a role is on; nil where the run does not have it.
    func place(of role: Role) -> Int? { pools.firstIndex { $0.roles.contains(role) } }

    /// The pools that do more than sample: what is learned and kept concerns no other.
    var learning: [Pool] { pools.filter { $0.roles != [.rollout] } }

    subscript(role: Role) -> WorkerGroup<RankWorker> {
        guard let place = place(of: role) else { preconditionFailure("no pool plays \(role)") }
        return pools[place].group
    }

    /// The same call on all ranks of all pools, or of those that are named, at the same time.
    /// - Returns: of each pool, in order, what comes of it.
    func call<Call: WorkerCall, Output: Sendable>(
        _ call: Call, _ collect: Collect<Call.Answer, Output>, on pools: [Pool]? = nil
    ) async throws -> [Output] where Call.Worker == RankWorker {
        try await Self.all((pools ?? self.pools).map { try $0.group.issue(call, .broadcast, collect) })
    }

    /// What came of calls that wait for one another; where several failed, the error of the one at fault.
    static func all<Output: Sendable>(_ pending: [PendingCall<Output>]) async throws -> [Output] {
        guard pending.count > 1 else { return try await [pending[0].value] }
        return try await withThrowingTaskGroup(of: (Int, Result<Output, any Error>).self) { tasks in
            for (index, one) in pending.enumerated() {
                tasks.addTask {
                    do { return (index, .success(try await one.value)) } catch { return (index, .failure(error)) }
                }
            }
            var outputs = [Output?](repeating: nil, count: pending.count)
            var consequence: (any Error)?
            defer { for one in pending { one.cancel() } }
            for try await (index, result) in tasks {
                switch result {
                case .success(let output): outputs[index] = output
                case .failure(let error):
                    // Another pool's error comes within the time that this one's ranks would wait for theirs.
                    guard (error as? WorkerCallError)?.isConsequence == true, consequence == nil else { throw error }
                    consequence = error
                }
            }
            if let consequence { throw consequence }
            return outputs.compactMap { $0 }
        }
    }
}
