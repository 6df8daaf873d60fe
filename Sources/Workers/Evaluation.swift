public import Config
public import Flow
public import Logging
import Rewards
public import Telemetry

/// A model measured on a recipe's held-out prompts, without training.
public struct Evaluation: Sendable {
    public let config: RunConfig
    public let log: Logger

    public init(config: RunConfig, log: Logger) {
        self.config = config
        self.log = log
    }

    /// - Parameter checkpoints: a run's checkpoint folder, to measure its newest weights; nil for the recipe's model.
    public func run(checkpoints: String? = nil) async throws -> (metrics: PhaseMetrics, answers: [Trajectory]) {
        let plan = try RunPlan(config)
        return try await RunServices.with(plan, log) { services in
            var policy = try plan.policy(nil)
            // A run's checkpoint knows whether the run trained an adapter, and which.
            if checkpoints != nil { policy.adapter = nil }
            let worker = PolicyWorker(policy)
            let text = try await worker.load()
            if let checkpoints { try await worker.loadWeights(checkpoints: checkpoints) }
            let prompts = try DataSources(config).prepare(config, services.encoder(text, config), log)
            guard !prompts.heldOut.isEmpty else {
                throw WorkerError(.badData, "data.val_files names nothing to measure on")
            }
            let evaluator = HeldOutEvaluator(
                prompts: prompts.heldOut,
                rollout: try await services.rollout(
                    config, worker, contextLength: try await worker.contextLength(), text, log),
                settings: plan.validation, reward: services.worker(config),
                batchSize: config.data.valBatchSize ?? prompts.heldOut.count)
            let (metrics, answers) = try await evaluator.answers()
            return (metrics, answers)
        }
    }
}
