import Checkpoints
import Config
import Flow
import Models
import OrderedCollections
import RolloutCore
import RolloutEngine
import Telemetry
import TensorCore
import Tokenizers
import TrainingEngine

/// Trains one model on examples, and answers held-out prompts with it, on one thread of its own.
actor SupervisedWorker {
    /// What a worker is made of, from the configuration.
    struct Plan: Sendable {
        var kind: SupervisedKind
        var modelPath: String
        var templatePath: String?
        var dtype: DType
        var device: Device
        var checkpointing = ActivationCheckpointing.none
        /// Whether what checkpointed layers keep waits on the host; nothing happens where the device is the host.
        var offloadsActivations = false
        var adapter: AdapterPlan?
        var mergesAdapter = false
        /// Of a new head's first weights.
        var seed: UInt64 = 0
    }

    /// How it is trained.
    struct Training: Sendable {
        var objective: any SupervisedObjective
        var optimizer: AdamW.Settings
        var schedule: LearningRateSchedule
        var settings: SupervisedTrainer.Settings
        var checkpointFolder: String?
        var checkpointsKept: Int?
    }

    private struct Parts {
        let source: ModelSource
        let network: SupervisedNetwork
        let text: TextProcessor
        /// Of language models, on the very tensors that are trained.
        let rollout: RolloutEngine?
        var model: any SequenceModel { network.model }
    }

    private let executor: TensorExecutor
    private let plan: Plan
    private var parts: Parts?
    private var trainer: SupervisedTrainer?
    private var store: CheckpointStore?
    private var found: TrainingCheckpoints.Found?

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ plan: Plan, executor: TensorExecutor = TensorExecutor()) {
        self.plan = plan
        self.executor = executor
    }

    /// Reads the model; until then no other call works.
    /// - Parameter text: the checkpoint's text half, where it was read before.
    func load(_ text: TextProcessor? = nil) throws {
        try plan.device.makeCurrent()
        let source = try ModelSource.open(plan.modelPath)
        let network = try network(source)
        try plan.adapter?.add(to: network.model)
        network.model.checkpointing = plan.checkpointing
        if plan.offloadsActivations, plan.device != .cpu {
            network.model.activationOffload = try ActivationOffload(device: plan.device)
        }
        let text = try text ?? TextProcessor(source, templatePath: plan.templatePath)
        var rollout: RolloutEngine?
        if case .language(let model) = network {
            let engine = RolloutEngine(
                model: model, options: RolloutEngineSettings().options(mergesAdapter: plan.mergesAdapter))
            engine.makeDetokenizer = text.makeDetokenizer
            rollout = engine
        }
        parts = Parts(source: source, network: network, text: text, rollout: rollout)
    }

    private func network(_ source: ModelSource) throws -> SupervisedNetwork {
        guard plan.kind == .rewardModel else {
            return .language(try ModelRegistry.load(source, dtype: plan.dtype, device: plan.device))
        }
        let head = ScoringModel.NewHead(
            standardDeviation: try source.config.double("initializer_range", default: 0.02), seed: plan.seed,
            reading: .lastToken)
        let model = try ModelRegistry.loadScoring(source, dtype: plan.dtype, device: plan.device, newHead: head)
        guard model.labels == 1, model.reading == .lastToken else {
            throw ModelError(
                .unsupported,
                "\(source.path): a reward model gives one number for a sequence; this \(model.architecture) gives "
                    + "\(model.labels) for \(model.reading == .lastToken ? "a sequence" : "every token")")
        }
        return .scoring(model)
    }

    private func loaded() throws -> Parts {
        guard let parts else { throw WorkerError(.badSetting, "the worker was used before load()") }
        return parts
    }

    private func training() throws -> (Parts, SupervisedTrainer) {
        let parts = try loaded()
        guard let trainer else { throw WorkerError(.badSetting, "the worker was asked to train before prepare(_:)") }
        return (parts, trainer)
    }

    /// Makes the optimizer and what else training needs.
    func prepare(_ training: Training) throws {
        let parts = try loaded()
        if parts.model.adapter == nil { try parts.source.requireTrainableWeights() }
        trainer = SupervisedTrainer(
            network: parts.network, objective: training.objective,
            optimizer: try AdamW(parameters: parts.model.trainableParameters, settings: training.optimizer),
            schedule: training.schedule, settings: training.settings)
        store = try training.checkpointFolder.map {
            try CheckpointStore(folder: $0, keepLast: training.checkpointsKept ?? Int.max)
        }
    }

    /// The token that ends no sequence for a reward model: its configuration's padding, or else the tokenizer's.
    static func padID(_ source: ModelSource, _ text: TextProcessor) throws -> Int32? {
        if let id = try source.config.optionalInt("pad_token_id") { return Int32(exactly: id) }
        return text.specialID("pad_token") ?? text.specialID("eos_token")
    }

    /// What an adapter trains, in a sentence or two; nil without one.
    func adapterSummary() throws -> String? {
        let bytes = trainer.map { "; the optimizer keeps \($0.optimizer.stateBytes.roundedMegabytes) MB" }
        return try loaded().model.adapterSummary.map { $0 + (bytes ?? "") }
    }

    /// What the optimizer keeps and where, and what of its settings changes nothing.
    func optimizerSummary() -> [String] {
        guard let optimizer = trainer?.optimizer else { return [] }
        return [optimizer.summary] + optimizer.notes
    }

    // MARK: - Training

    /// The reference's log-probabilities; the weights must be the first ones still, but below an adapter.
    func referenceLogProbs(_ examples: [SupervisedExample]) throws -> [[Float]] {
        try training().1.referenceLogProbs(examples)
    }

    func update(_ examples: [SupervisedExample]) throws -> PhaseMetrics {
        let (parts, trainer) = try training()
        let report = try trainer.update(examples)
        parts.rollout?.weightVersion += 1
        var metrics: PhaseMetrics = [:]
        for (name, value) in report.metrics { metrics[try Self.name(name, plain: "train/")] = value }
        metrics["train/grad_norm"] = report.gradNorm
        metrics["train/lr"] = report.learningRate
        // A gradient that was not finite leaves the weights alone: worth an alarm.
        metrics["train/nonfinite_gradients"] = report.stepped ? 0 : 1
        metrics["train/micro_batches"] = Double(report.microBatches)
        metrics["train/computed_tokens"] = Double(report.computedTokens)
        if report.learntTokens > 0 { metrics["train/learnt_tokens"] = Double(report.learntTokens) }
        return metrics
    }

    /// The objective's metrics on held-out examples, under `val/`.
    func evaluate(_ examples: [SupervisedExample]) throws -> PhaseMetrics {
        var metrics: PhaseMetrics = [:]
        for (name, value) in try training().1.evaluate(examples) { metrics[try MetricName("val/" + name)] = value }
        return metrics
    }

    private static func name(_ name: String, plain: String) throws -> MetricName {
        try MetricName(name.contains("/") ? name : plain + name)
    }

    /// Greedy answers as text.
    func answers(_ questions: [HeldOutQuestion], maxNewTokens: Int) throws -> [String] {
        let parts = try loaded()
        guard let rollout = parts.rollout else { preconditionFailure("a scoring model answers nothing") }
        let vocabulary = parts.model.shape.vocabulary
        let stops = parts.text.endOfTurnIDs.filter { $0 < vocabulary }
        let requests = questions.map { question in
            RolloutRequest(
                prompt: question.prompt,
                sampling: SamplingParameters(
                    n: 1, temperature: 0, maxTokens: maxNewTokens, stopTokenIDs: stops, seed: 0))
        }
        let samples = try rollout.generate(requests)
        _ = try rollout.sleep()
        return samples.map { parts.text.decode($0[0].tokens) }
    }

    // MARK: - Checkpoints

    private func checkpoints() throws -> TrainingCheckpoints {
        let (parts, trainer) = try training()
        return TrainingCheckpoints(
            store: store, optimizer: trainer.optimizer, model: parts.model, source: parts.source)
    }

    func save(step: Int, state: LoopState) throws {
        try checkpoints().save(step: step, state: state, weightVersion: parts?.rollout?.weightVersion ?? step)
    }

    /// Looks for the checkpoint to go on from, and leaves the weights as they are.
    func findCheckpoint(at path: String?) throws -> (state: LoopState?, skipped: [String]) {
        let (found, skipped) = try checkpoints().find(at: path)
        self.found = found
        return (found?.state.loop, skipped)
    }

    /// Puts the checkpoint that was found into weights and optimizer.
    func restore() throws {
        guard let found else { return }
        try checkpoints().restore(found)
        parts?.rollout?.weightVersion = found.state.weightVersion
        self.found = nil
    }

    func forgetCheckpoints() throws { try store?.removeAll() }

    /// Replaces the weights by those of a run's newest whole checkpoint, for a worker that does not train.
    func loadWeights(checkpoints folder: String) throws {
        try TrainingCheckpoints.loadWeights(from: folder, into: loaded().model)
    }

    /// Writes the model as a Hugging Face folder, an adapter's product added.
    func export(to folder: String, maxShardBytes: Int) throws {
        let parts = try loaded()
        var config: ModelConfig?
        if case .scoring(let model) = parts.network {
            config = parts.source.config.withHead(
                architecture: model.architecture, labels: model.labels,
                padID: try Self.padID(parts.source, parts.text).map(Int.init))
        }
        try ModelExport.write(
            model: parts.model, source: parts.source, config: config, to: folder, maxShardBytes: maxShardBytes)
    }
}
