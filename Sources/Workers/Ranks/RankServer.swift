public import Config
import Telemetry

/// A rank other than 0: does what rank 0 tells it, until there is nothing more.
public struct RankServer: Sendable {
    public let config: RunConfig
    private let members: RankMembership

    public init(config: RunConfig, members: RankMembership) {
        self.config = config
        self.members = members
    }

    public func run(localRank: Int) async throws {
        let plan = try RunPlan(config, localRank: localRank)
        plan.limitThreads(ranks: members.size)
        let worker = PolicyWorker(plan.policy(members))
        try await worker.load()
        let channel = try RankChannel(members)
        while true {
            switch try await channel.receive() {
            case .prepare(let totalSteps):
                // Rank 0 alone writes checkpoints.
                try await worker.prepare(plan.training(totalSteps: totalSteps, checkpoints: nil))
                try await channel.answer(.done)
            case .restore(let folder):
                _ = try await worker.restore(from: folder)
                try await channel.answer(.done)
            case .generate(let request):
                let share = try await worker.generateShare(request, rank: members.rank, of: members.size)
                try await channel.answer(.generated(share))
            case .logProbs(let rows):
                _ = try await worker.logProbs(rows.trajectories)
                try await channel.answer(.done)
            case .referenceLogProbs(let rows):
                _ = try await worker.referenceLogProbs(rows.trajectories)
                try await channel.answer(.done)
            case .update(let rows, let seed):
                _ = try await worker.update(rows.trajectories, seed: seed)
                try await channel.answer(.done)
            case .save:
                try await channel.answer(.done)
            case .finish:
                try await channel.answer(.done)
                members.leave()
                return
            }
        }
    }
}
