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
        let worker = PolicyWorker(try plan.policy(members))
        try await worker.load()
        let channel = try RankChannel(members)
        while true {
            switch try await channel.receive() {
            case .prepare(let totalSteps):
                let folder = RunFolder(config.runFolder)
                try await worker.prepare(plan.training(totalSteps: totalSteps, checkpoints: folder.checkpoints))
                try await channel.answer(.done)
            case .restore(let path):
                _ = try await worker.restore(from: path)
                try await channel.answer(.done)
            case .forgetCheckpoints:
                try await worker.forgetCheckpoints()
                try await channel.answer(.done)
            case .generate(let request):
                let share = try await worker.generateShare(request)
                try await channel.answer(.generated(share))
            case .logProbs(let rows):
                _ = try await worker.logProbs(rows.trajectories)
                try await channel.answer(.done)
            case .referenceLogProbs(let rows):
                _ = try await worker.referenceLogProbs(rows.trajectories)
                try await channel.answer(.done)
            case .sumsPiSquared(let rows):
                _ = try await worker.sumsPiSquared(rows.trajectories)
                try await channel.answer(.done)
            case .values(let rows):
                _ = try await worker.values(rows.trajectories)
                try await channel.answer(.done)
            case .updateCritic(let rows, let seed):
                _ = try await worker.updateCritic(rows.trajectories, seed: seed)
                try await channel.answer(.done)
            case .update(let rows, let seed):
                _ = try await worker.update(rows.trajectories, seed: seed)
                try await channel.answer(.done)
            case .save(let step):
                try await worker.savePart(step: step, state: nil)
                try await channel.answer(.done)
            case .finish:
                try await worker.settleCheckpoints()
                try await channel.answer(.done)
                members.leave()
                return
            }
        }
    }
}
