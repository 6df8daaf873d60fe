public import Config
import Collectives
public import Flow
import Synchronization
import Telemetry
import TensorCore

/// One rank of a run: what the controller's calls are carried out on. Holds the model once it is asked to load it.
public final class RankWorker: Sendable {
    public let config: RunConfig
    public let members: RankMembership
    private let localRank: Int
    private struct State {
        var policy: PolicyWorker?
        var plan: RunPlan?
        var isFinished = false
    }
    private let state = Mutex(State())

    public init(config: RunConfig, members: RankMembership, localRank: Int) {
        self.config = config
        self.members = members
        self.localRank = localRank
    }

    /// Whether the controller has said that there is nothing more to do.
    public var isFinished: Bool { state.withLock { $0.isFinished } }
    func finish() { state.withLock { $0.isFinished = true } }

    /// Whether its answers count where all ranks have the same.
    var speaks: Bool { members.rank == 0 }

    /// - Throws: ``WorkerError`` before ``load()``.
    func policy() throws -> (worker: PolicyWorker, plan: RunPlan) {
        let (policy, plan) = state.withLock { ($0.policy, $0.plan) }
        guard let policy, let plan else {
            throw WorkerError(.badSetting, "rank \(members.rank) was used before it was loaded")
        }
        return (policy, plan)
    }

    /// How the ranks of a run divide its work, in the order of their numbers.
    /// - Throws: ``WorkerError`` when the configuration's sizes do not make up the ranks.
    public static func mesh(_ config: RunConfig, ranks: Int) throws -> GroupMesh {
        let shape = try ShardingPlan(config.actor, config.rollout, ranks: ranks).mesh
        return GroupMesh(
            MeshAxis.all.map { GroupMesh.Axis($0.name, shape[$0]) }, data: Set(MeshAxis.data.map(\.name)))
    }

    /// Opens the device and reads the model.
    func load() async throws -> LoadPolicy.Answer {
        let plan = try RunPlan(config, localRank: localRank)
        plan.limitThreads(ranks: members.ranksOfHost)
        if config.trainer.deterministic { Torch.useDeterministicAlgorithms(true) }
        var notes: [String] = []
        if speaks { notes = try plan.notes + plan.checkMemory(ranks: members.size) }
        let policy = PolicyWorker(try plan.policy(members))
        try await policy.load()
        state.withLock { state in
            state.policy = policy
            state.plan = plan
        }
        return LoadPolicy.Answer(
            device: plan.device.description, notes: notes, contextLength: try await policy.contextLength())
    }
}
