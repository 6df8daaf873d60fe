public import Flow
public import OrderedCollections
public import Rewards
import Telemetry

/// Answers every held-out prompt and reports the exact-match rate and the mean reward.
public struct HeldOutEvaluator: Evaluator {
    public let prompts: [PromptTask]
    public let rollout: any RolloutGroup
    public let settings: RolloutRequestSettings
    public let reward: RewardWorker
    /// Prompts of one generation call.
    public let batchSize: Int

    public init(
        prompts: [PromptTask], rollout: any RolloutGroup, settings: RolloutRequestSettings, reward: RewardWorker,
        batchSize: Int
    ) {
        self.prompts = prompts
        self.rollout = rollout
        self.settings = settings
        self.reward = reward
        self.batchSize = max(1, batchSize)
    }

    public func evaluate() async throws -> PhaseMetrics { try await answers().metrics }

    /// The metrics with the answers behind them.
    public func answers() async throws -> (metrics: PhaseMetrics, trajectories: [Trajectory]) {
        var trajectories: [Trajectory] = []
        for start in stride(from: 0, to: prompts.count, by: batchSize) {
            let batch = Array(prompts[start..<min(start + batchSize, prompts.count)])
            trajectories += try await rollout.generate(batch, settings).trajectories
        }
        let exact = await ExactMatchReward().score(reward.requests(trajectories))
        let scored = await reward.outcomes(trajectories)
        let statistics = RewardStatistics(scored)
        for index in trajectories.indices { trajectories[index].score = scored[index].score }
        var bySource: OrderedDictionary<String, [Double]> = [:]
        for (index, outcome) in exact.enumerated() {
            bySource[trajectories[index].prompt.dataSource, default: []].append(outcome.score ?? 0)
        }
        let all = bySource.values.flatMap { $0 }
        var metrics: PhaseMetrics = ["val/exact_match": all.reduce(0, +) / Double(max(1, all.count))]
        if bySource.count > 1 {
            for (source, values) in bySource {
                let safe = String(source.map { $0.isLetter && $0.isASCII || $0.isNumber && $0.isASCII ? $0 : "_" })
                metrics[try MetricName("val/\(safe)/exact_match")] = values.reduce(0, +) / Double(values.count)
            }
        }
        if let mean = statistics.mean { metrics["val/score/mean"] = mean }
        metrics["val/reward_failed"] = Double(statistics.failed)
        metrics["val/response_length/mean"] =
            trajectories.reduce(0) { $0 + Double($1.response.count) } / Double(max(1, trajectories.count))
        let episodes = trajectories.compactMap(\.episode)
        if !episodes.isEmpty {
            let count = Double(episodes.count)
            metrics["val/turns/mean"] = Double(episodes.reduce(0) { $0 + $1.turns }) / count
            metrics["val/tool_calls/mean"] = Double(episodes.reduce(0) { $0 + $1.toolCalls }) / count
            metrics["val/episodes_failed"] = Double(episodes.count { $0.failure != nil })
        }
        return (metrics, trajectories)
    }
}
