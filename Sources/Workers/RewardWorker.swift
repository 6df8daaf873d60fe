import Config
public import Flow
public import OrderedCollections
public import PolicyAlgorithms
public import Rewards
import Telemetry

/// Scores answers with a reward and settles what becomes of those it failed on.
public struct RewardWorker: RewardGroup {
    public let reward: any Reward
    public let policy: RewardFailurePolicy
    public let maxResponseTokens: Int
    /// What overlong answers lose in training; held-out ones never do.
    public private(set) var overlong: OverlongPenalty?

    public init(reward: any Reward, policy: RewardFailurePolicy, maxResponseTokens: Int) {
        self.reward = reward
        self.policy = policy
        self.maxResponseTokens = maxResponseTokens
    }

    /// This worker with the punishment of overlong answers that the configuration asks for.
    /// - Throws: `AlgorithmError` for a buffer longer than an answer.
    func punishing(_ buffer: OverlongBufferSettings) throws -> RewardWorker {
        var worker = self
        worker.overlong =
            buffer.enable
            ? try OverlongPenalty(
                maxLength: maxResponseTokens, buffer: buffer.length, penalty: buffer.penaltyFactor) : nil
        return worker
    }

    public func score(
        _ trajectories: [Trajectory]
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let outcomes = await reward.score(requests(trajectories))
        let scores = try policy.resolve(outcomes, groups: trajectories.map(\.prompt.group))
        var scored = trajectories
        for index in scored.indices {
            scored[index].score = scores[index]
            if case .scored(_, let details) = outcomes[index] {
                for (name, value) in details { scored[index].scoreDetails[name] = value }
            }
        }
        let statistics = RewardStatistics(outcomes)
        var metrics: PhaseMetrics = ["reward/failed": Double(statistics.failed)]
        if let overlong {
            var penalties: [Double] = []
            for index in scored.indices {
                guard let score = scored[index].score else { continue }
                let penalty = overlong(length: scored[index].response.count)
                scored[index].score = score + penalty
                penalties.append(penalty)
            }
            let count = Double(max(1, penalties.count))
            metrics["reward/overlong/mean"] = penalties.reduce(0, +) / count
            metrics["reward/overlong_ratio/mean"] = Double(penalties.count { $0 < 0 }) / count
        }
        for kind in RewardFailure.Kind.allCases {
            if let count = statistics.failures[kind] {
                metrics[try MetricName("reward/failed_" + kind.rawValue)] = Double(count)
            }
        }
        metrics["reward/dropped_samples"] = Double(scores.count { $0 == nil })
        return (scored, metrics)
    }

    func requests(_ trajectories: [Trajectory]) -> [RewardRequest] {
        trajectories.enumerated().map { index, trajectory in
            RewardRequest(
                id: index, dataSource: trajectory.prompt.dataSource, prompt: trajectory.prompt.text,
                response: trajectory.text, groundTruth: trajectory.prompt.groundTruth,
                groundTruthJSON: trajectory.prompt.groundTruthJSON, extraInfoJSON: trajectory.prompt.extraInfoJSON,
                responseTokens: trajectory.response.count, maximumResponseTokens: maxResponseTokens)
        }
    }
}
