public import OrderedCollections
import Telemetry

/// A reward that also scores a greedy answer to each prompt, under the weights as they are, and puts that score beside the others
/// (ReMax, Li et al. 2023). Any loop may have it in place of its reward.
public struct GreedyBaseline: RewardGroup {
    public let reward: any RewardGroup
    public let rollout: any RolloutGroup
    public let settings: RolloutRequestSettings

    /// - Parameter settings: those of the samples; greedy and of one answer here.
    public init(_ reward: any RewardGroup, rollout: any RolloutGroup, settings: RolloutRequestSettings) {
        self.reward = reward
        self.rollout = rollout
        var settings = settings
        settings.n = 1
        settings.temperature = 0
        settings.topK = -1
        settings.topP = 1
        settings.minP = 0
        // Every prompt has a baseline, however long its answer takes.
        settings.groupsWanted = nil
        settings.stragglerShare = nil
        self.settings = settings
    }

    /// A group whose greedy answer has no score is left out: nothing stands in for it.
    public func score(
        _ trajectories: [Trajectory]
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        var (scored, metrics) = try await reward.score(trajectories)
        var prompts: OrderedDictionary<Int, PromptTask> = [:]
        for trajectory in scored { prompts[trajectory.prompt.group] = trajectory.prompt }
        let greedy = try await rollout.generate(Array(prompts.values), settings)
        let baselines = try await reward.score(greedy.trajectories)
        var scores: [Int: Double] = [:]
        for answer in baselines.trajectories { scores[answer.prompt.group] = answer.score }
        for index in scored.indices {
            scored[index].baselineScore = scores[scored[index].prompt.group]
            if scored[index].baselineScore == nil { scored[index].score = nil }
        }
        let known = prompts.keys.compactMap { scores[$0] }
        if !known.isEmpty { metrics["reward/baseline/mean"] = known.reduce(0, +) / Double(known.count) }
        metrics["reward/dropped_baselines"] = Double(prompts.count - known.count)
        if let tokens = greedy.metrics["rollout/generated_tokens"] { metrics["reward/baseline_tokens"] = tokens }
        return (scored, metrics)
    }
}
