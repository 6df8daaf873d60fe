import Flow
import OrderedCollections
import RolloutCore
import Telemetry

/// Whole batches of a pool of samplers, whose answers are drawn beside all others that it is asked for.
struct PoolRollout: RolloutGroup {
    let pool: any RolloutPool

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let answers = try await withThrowingTaskGroup(of: (Int, [Trajectory]).self) { tasks in
            for (index, prompt) in prompts.enumerated() {
                var own = settings
                // Of its number in the run, as it comes with others by chance.
                own.seed = SplitMix64.seed(settings.seed, UInt64(truncatingIfNeeded: prompt.group))
                tasks.addTask { [own] in (index, try await pool.answer(prompt, own)) }
            }
            var all = [[Trajectory]](repeating: [], count: prompts.count)
            for try await (index, found) in tasks { all[index] = found }
            return all.flatMap { $0 }
        }
        let drawn = answers.reduce(0) { $0 + $1.learnedCount }
        return (answers, ["rollout/generated_tokens": Double(drawn)])
    }
}
