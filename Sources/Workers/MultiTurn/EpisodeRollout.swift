import Config
import Environments
import Flow
import Logging
import OrderedCollections
import Telemetry

/// Answers prompts by playing episodes, turn after turn together: the policy's replies and an environment's answers.
struct EpisodeRollout: RolloutGroup {
    let drawing: any EpisodeDrawing
    let stage: EpisodeStage
    /// nil: a turn's replies are drawn when all episodes that go on are there.
    let patience: Duration?
    let log: Logger

    /// - Throws: ``WorkerError`` when the template does not show how the model calls tools and `format` is `auto`.
    init(
        _ config: RunConfig, drawing: any EpisodeDrawing, environment: any Environment, text: TextProcessor,
        log: Logger
    ) async throws {
        self.drawing = drawing
        self.log = log
        stage = try EpisodeStage(config, environment, text, contextLength: try await drawing.contextLength())
        patience = config.rollout.multiTurn.patienceSeconds.map { .seconds($0) }
    }

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let tasks = try stage.tasks(prompts, settings), limits = stage.limits
        let prompt = min(limits.promptTokens, prompts.map(\.tokens.count).max() ?? 1)
        try await drawing.beginEpisodes(
            tasks.count, tokens: min(limits.contextTokens, prompt + limits.responseTokens))
        let results: [EpisodeResult]
        do {
            results = try await play(tasks, settings)
        } catch {
            _ = try? await drawing.endEpisodes()
            throw error
        }
        let draws = try await drawing.endEpisodes()
        let trajectories = results.map { result in
            result.trajectory(of: prompts[result.task.id / settings.n], (draws.weightVersion, draws.weightDigest))
        }
        let tally = EpisodeTally(trajectories)
        tally.complain(log)
        return (trajectories, draws.metrics.merging(try tally.metrics()) { $1 })
    }

    private func play(_ tasks: [EpisodeTask], _ settings: RolloutRequestSettings) async throws -> [EpisodeResult] {
        let sampler = GatheringSampler(patience: patience) { [drawing] in try await drawing.draw($0, settings) }
        let rollout = try stage.rollout(sampler)
        guard patience == nil else { return try await rollout.run(tasks, seed: settings.seed) }
        // Who takes a free place would depend on the clock: the same episodes begin together in every run.
        var results: [EpisodeResult] = []
        for start in stride(from: 0, to: tasks.count, by: stage.limits.concurrency) {
            let wave = tasks[start..<min(start + stage.limits.concurrency, tasks.count)]
            results += try await rollout.run(Array(wave), seed: settings.seed)
        }
        return results
    }
}
