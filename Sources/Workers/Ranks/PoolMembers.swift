import Collectives
import Config
import TensorCore

/// This process among the ranks of its pool, and beside those of other pools.
public struct PoolMembers: Sendable {
    public let all: RankMembership
    /// nil where all ranks play all roles.
    let mapping: PoolMapping?
    /// This process's pool.
    private let pool: PoolMapping.Pool?

    /// - Throws: ``WorkerError`` where the pools do not make up the ranks.
    init(_ all: RankMembership, _ mapping: PoolMapping?) throws(WorkerError) {
        if let mapping { try mapping.check(ranks: all.size) }
        self.all = all
        self.mapping = mapping
        pool = mapping?.pool(of: all.rank)
    }

    /// Among the ranks of the pool.
    var rank: Int { all.rank - (pool?.ranks.lowerBound ?? 0) }
    var size: Int { pool?.ranks.count ?? all.size }
    var watch: RankWatch { all.watch }
    var poolName: String? { pool?.name }

    /// Whether this rank plays a role, where the run has it.
    func plays(_ role: Role) -> Bool { pool.map { $0.roles.contains(role) } ?? true }

    /// Whether roles are on different pools.
    func parts(_ one: Role, _ other: Role) -> Bool { mapping?.parts(one, other) ?? false }

    /// A mesh of the pool's ranks, as ``RankMembership/mesh(_:device:name:members:)``.
    func mesh(_ shape: MeshShape, device: Device, name: String = "") -> DeviceMesh {
        guard let pool else { return all.mesh(shape, device: device, name: name) }
        return all.mesh(
            shape, device: device, name: [pool.name, name].filter { !$0.isEmpty }.joined(separator: "/"),
            members: Array(pool.ranks))
    }

    /// The ranks of two roles' pools, the first one's first; those of one where it is the same.
    func ranks(_ one: Role, _ other: Role) -> [Int] {
        guard let mapping, let first = mapping.pool(of: one) else { return Array(0..<all.size) }
        guard let second = mapping.pool(of: other), second != first else { return Array(first.ranks) }
        return Array(first.ranks) + Array(second.ranks)
    }

    /// Those who write checkpoints together, where they are of two pools: the policy's ranks, then the critic's. Else nil.
    func savers(_ mesh: DeviceMesh) throws -> ProcessGroup? {
        guard parts(.actor, .critic) else { return nil }
        return try all.group(ranks(.actor, .critic), device: mesh.device, name: "checkpoints")
    }
}

extension PoolMapping {
    /// - Throws: ``WorkerError`` where so many ranks were started that the pools are other.
    func check(ranks: Int) throws(WorkerError) {
        guard ranks != rankCount else { return }
        throw WorkerError(
            .badSetting,
            "resource_pools: \(pools.map { "\($0.name) \($0.ranks.count)" }.joined(separator: ", ")) are \(rankCount) ranks, and "
                + "\(ranks) were started; start \(rankCount), or change the pools")
    }
}
