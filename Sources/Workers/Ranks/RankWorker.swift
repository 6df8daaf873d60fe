public import Config
import Collectives
public import Flow
import Synchronization
import Telemetry
import TensorCore

/// One rank of a run: what the controller's calls are carried out on. Holds the models of its pool's roles once it is asked to load them.
public final class RankWorker: Sendable {
    public let config: RunConfig
    public let members: RankMembership
    private let localRank: Int
    private struct State {
        var loaded: Loaded?
        var isFinished = false
    }
    private struct Loaded {
        var plan: RunPlan
        var pool: PoolMembers
        var policy: PolicyWorker?
        var side: SideWorker?
        var rewardModel: RewardModelWorker?
    }
    private let state = Mutex(State())
    /// Of the step at hand.
    let rows = KeptRows()

    public init(config: RunConfig, members: RankMembership, localRank: Int) {
        self.config = config
        self.members = members
        self.localRank = localRank
    }

    /// Whether the controller has said that there is nothing more to do.
    public var isFinished: Bool { state.withLock { $0.isFinished } }
    func finish() { state.withLock { $0.isFinished = true } }

    /// Whether its answers count where all ranks of its pool have the same.
    var speaks: Bool { members.rank == config.mapping?.pool(of: members.rank)?.ranks.lowerBound ?? 0 }

    private func loaded() throws -> Loaded {
        guard let loaded = state.withLock({ $0.loaded }) else {
            throw WorkerError(.badSetting, "rank \(members.rank) was used before it was loaded")
        }
        return loaded
    }

    /// - Throws: ``WorkerError`` before ``load()``, and on a rank whose pool has no policy.
    func policy() throws -> PolicyWorker {
        guard let policy = try loaded().policy else {
            throw WorkerError(.badSetting, "rank \(members.rank) is of a pool without the policy")
        }
        return policy
    }

    /// The critic and the reference, where they are without the policy.
    func side() throws -> SideWorker? { try loaded().side }

    /// What has the critic and the reference here.
    func sideRoles() throws -> any SideRoles { try side() ?? policy() }

    /// The policy, where this rank has it.
    func policyIfHere() throws -> PolicyWorker? { try loaded().policy }

    /// - Throws: ``WorkerError`` on a rank whose pool has none.
    func rewardModel() throws -> RewardModelWorker {
        guard let model = try loaded().rewardModel else {
            throw WorkerError(.badSetting, "rank \(members.rank) is of a pool without the reward model")
        }
        return model
    }

    /// Ends what the policy waits for in its link of this number, or would.
    func breakLink(_ number: Int) throws { try loaded().policy?.plan.linkBreaker.end(number) }

    /// How training is planned for this rank's pool.
    func training(totalSteps: Int) throws -> TrainingPlan {
        let loaded = try loaded()
        var plan = loaded.plan.training(totalSteps: totalSteps, checkpoints: RunFolder(config.runFolder).checkpoints)
        plan.hasCritic = plan.hasCritic && loaded.pool.plays(.critic)
        plan.needsReference = plan.needsReference && loaded.pool.plays(.reference)
        try loaded.plan.takeTurns(&plan, ranks: loaded.pool.size, pool: config.mapping?.pool(of: members.rank))
        return plan
    }

    /// Whether this rank trains the policy.
    func trains() throws -> Bool { try loaded().pool.plays(.actor) }

    /// How the ranks of a run divide its work, in the order of their numbers. Pools divide theirs each for itself.
    /// - Throws: ``WorkerError`` when the configuration's sizes do not make up the ranks.
    public static func mesh(_ config: RunConfig, ranks: Int) throws -> GroupMesh {
        if let mapping = config.mapping {
            try mapping.check(ranks: ranks)
            return .data(ranks)
        }
        let shape = try ShardingPlan(config.actor, config.rollout, ranks: ranks).mesh
        return GroupMesh(
            MeshAxis.all.map { GroupMesh.Axis($0.name, shape[$0]) }, data: Set(MeshAxis.data.map(\.name)))
    }

    /// Opens the device and reads the models.
    func load() async throws -> LoadPolicy.Answer {
        let plan = try RunPlan(config, localRank: localRank), pool = try PoolMembers(members, config.mapping)
        plan.limitThreads(ranks: members.ranksOfHost)
        if config.trainer.deterministic { Torch.useDeterministicAlgorithms(true) }
        var notes: [String] = []
        if speaks {
            notes = try plan.notes + plan.checkMemory(ranks: pool.size, pool: config.mapping?.pool(of: members.rank))
            if let name = pool.poolName { notes = notes.map { "pool \(name): \($0)" } }
        }
        var loaded = Loaded(plan: plan, pool: pool)
        var length = Int.max
        if pool.plays(.actor) || pool.plays(.rollout) {
            let policy = PolicyWorker(try plan.policy(pool))
            try await policy.load()
            length = try await policy.contextLength()
            loaded.policy = policy
        }
        // Beside the policy's trainer they are its own.
        if !pool.plays(.actor), pool.plays(.critic) || pool.plays(.reference) {
            let side = SideWorker(try plan.side(pool))
            length = min(length, try await side.load())
            loaded.side = side
        }
        if config.mapping != nil, pool.plays(.rewardModel), let model = config.reward.model {
            let worker = RewardModelWorker(.init(model, plan))
            try await worker.load()
            loaded.rewardModel = worker
        }
        state.withLock { [loaded] in $0.loaded = loaded }
        return LoadPolicy.Answer(device: plan.device.description, notes: notes, contextLength: length)
    }
}
