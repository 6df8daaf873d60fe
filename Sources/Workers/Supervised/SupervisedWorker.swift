import Checkpoints
import Collectives
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
        /// The ranks that train together, and how they share the work; nil for this one alone.
        var members: PoolMembers?
        var layout: ShardingPlan?
        /// Whether it answers prompts too.
        var samples = true
    }

    /// How it is trained.
    struct Training: Sendable {
        var objective: any SupervisedObjective
        /// What ranks share; alone it means nothing.
        var shares: TrainingShares
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
        /// Of language models, on the very tensors that are trained, or on a copy where this rank trains a part.
        let rollout: RolloutEngine?
        /// The ranks that train together; nil for one alone.
        var mesh: DeviceMesh?
        /// Holds the weights of ``rollout``'s model where it is another.
        var copy: ReshardedModel?
        /// See ``RankedCheckpoints/Trained/whole``.
        var whole: (any SequenceModel)?
        var model: any SequenceModel { network.model }
    }

    private let executor: TensorExecutor
    private let plan: Plan
    private var parts: Parts?
    private var trainer: SupervisedTrainer?
    private var store: CheckpointStore?
    private var found: TrainingCheckpoints.Found?
    /// Where ranks train together.
    private var ranked: RankedCheckpoints?
    private var sampled: SampledWeights?
    /// Of all ranks, on the host: what they must know of one another beside tensors. Its own, so that no device waits.
    private var talk: ProcessGroup?

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
        let known = text, text: TextProcessor
        if let known { text = known } else { text = try TextProcessor(source, templatePath: plan.templatePath) }
        let parts = try plan.kind == .rewardModel ? scoring(source, text) : language(source, text)
        let model = parts.model
        try plan.adapter?.add(to: model)
        model.checkpointing = plan.checkpointing
        if plan.offloadsActivations, plan.device != .cpu {
            model.activationOffload = try ActivationOffload(device: plan.device)
        }
        parts.rollout?.makeDetokenizer = text.makeDetokenizer
        self.parts = parts
    }

    private func language(_ source: ModelSource, _ text: TextProcessor) throws -> Parts {
        let models = try RankModels(
            .init(
                dtype: plan.dtype, device: plan.device, members: plan.members, layout: plan.layout,
                samples: plan.samples), source)
        let engine = RolloutEngine(
            model: models.sampled, options: RolloutEngineSettings().options(mergesAdapter: plan.mergesAdapter))
        return Parts(
            source: source, network: .language(models.trained), text: text, rollout: engine, mesh: models.mesh,
            copy: models.copy, whole: models.whole)
    }

    private func scoring(_ source: ModelSource, _ text: TextProcessor) throws -> Parts {
        let head = ScoringModel.NewHead(
            standardDeviation: try source.config.double("initializer_range", default: 0.02), seed: plan.seed,
            reading: .lastToken)
        var mesh: DeviceMesh?, parallel = ParallelContext()
        if let members = plan.members, let layout = plan.layout {
            (mesh, parallel) = try layout.training(members, plan.device)
        }
        let model = try ModelRegistry.loadScoring(
            source, dtype: plan.dtype, device: plan.device, newHead: head, parallel: parallel)
        try plan.layout?.check(model, source)
        guard model.labels == 1, model.reading == .lastToken else {
            throw ModelError(
                .unsupported,
                "\(source.path): a reward model gives one number for a sequence; this \(model.architecture) gives "
                    + "\(model.labels) for \(model.reading == .lastToken ? "a sequence" : "every token")")
        }
        return Parts(
            source: source, network: .scoring(model), text: text, rollout: nil, mesh: mesh,
            whole: mesh?.shape[.expert] ?? 1 == 1 ? model : nil)
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

    /// Says what cannot be trained so, before anything is written.
    func check(_ training: Training) throws {
        let parts = try loaded()
        if parts.model.adapter == nil { try parts.source.requireTrainableWeights() }
        try training.shares.checkTied(parts.model, training.optimizer)
    }

    /// Makes the optimizer and what else training needs.
    func prepare(_ training: Training) throws {
        let parts = try loaded()
        let folder = training.checkpointFolder, kept = training.checkpointsKept
        guard let mesh = parts.mesh, let layout = plan.layout else {
            trainer = SupervisedTrainer(
                network: parts.network, objective: training.objective,
                optimizer: try AdamW(parameters: parts.model.trainableParameters, settings: training.optimizer),
                schedule: training.schedule, settings: training.settings)
            store = try folder.map { try CheckpointStore(folder: $0, keepLast: kept ?? Int.max) }
            return
        }
        let trainer = try SupervisedTrainer.sharded(
            parts.network, over: mesh, sharding: layout.options, objective: training.objective,
            optimizer: training.optimizer, schedule: training.schedule, settings: training.settings)
        guard let parallel = trainer.parallel else { preconditionFailure("a trainer of ranks without them") }
        sampled = parts.rollout.map { SampledWeights(parallel.parameters, engine: $0, copy: parts.copy) }
        ranked = try RankedCheckpoints(
            folder: folder, keepLast: kept,
            .init(
                model: parts.model, optimizer: trainer.optimizer, parameters: parallel.parameters,
                source: parts.source, config: exportedConfig(parts), whole: parts.whole),
            savers: mesh.group(MeshAxis.all))
        if let watch = plan.members?.watch { trainer.onPass = { watch.tick() } }
        self.trainer = trainer
    }

    // MARK: - Ranks

    /// Every rank's value, in the order of the ranks; of one alone its own. All ranks call it together.
    func exchange<Value: Codable & Sendable>(_ own: Value) throws -> [Value] {
        guard let members = plan.members else { return [own] }
        if talk == nil {
            let mesh = members.mesh(MeshShape([.replicate: members.size]), device: .cpu, name: "run")
            talk = try mesh.group(MeshAxis.all)
        }
        return try talk?.exchange(own, device: .cpu) ?? [own]
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

    /// Greedy answers as text; ranks take prompts in turn.
    func answers(_ questions: [HeldOutQuestion], maxNewTokens: Int) throws -> [String] {
        let parts = try loaded()
        guard let rollout = parts.rollout else { preconditionFailure("a scoring model answers nothing") }
        let members = plan.members, own = questions.indices.filter { $0 % (members?.size ?? 1) == members?.rank ?? 0 }
        let vocabulary = parts.model.shape.vocabulary
        let stops = parts.text.endOfTurnIDs.filter { $0 < vocabulary }
        let requests = own.map { index in
            RolloutRequest(
                prompt: questions[index].prompt,
                sampling: SamplingParameters(
                    n: 1, temperature: 0, maxTokens: maxNewTokens, stopTokenIDs: stops, seed: 0))
        }
        func answer() throws -> [String] {
            // Ranks may be more than prompts.
            if requests.isEmpty { return [] }
            let samples = try rollout.generate(requests) { _ in
                members?.watch.tick()
                return true
            }
            _ = try rollout.sleep()
            return samples.map { parts.text.decode($0[0].tokens) }
        }
        let all = try exchange(try sampled?.whole(answer) ?? answer())
        return questions.indices.map { all[$0 % all.count][$0 / all.count] }
    }

    // MARK: - Checkpoints

    private func checkpoints() throws -> TrainingCheckpoints {
        let (parts, trainer) = try training()
        return TrainingCheckpoints(
            store: store, optimizer: trainer.optimizer, model: parts.model, source: parts.source)
    }

    /// Of ranks each its part, written while training goes on.
    func save(step: Int, state: LoopState) throws {
        let version = parts?.rollout?.weightVersion ?? step
        if let ranked { return try ranked.save(step: step, state: state, weightVersion: version) }
        try checkpoints().save(step: step, state: state, weightVersion: version)
    }

    /// Waits until the checkpoint under way is whole.
    func settleCheckpoints() throws { try ranked?.settle() }

    /// Looks for the checkpoint to go on from, and leaves the weights as they are.
    func findCheckpoint(at path: String?) throws -> (state: LoopState?, skipped: [String]) {
        let (found, skipped) = try ranked?.find(at: path) ?? checkpoints().find(at: path)
        self.found = found
        return (found?.state.loop, skipped)
    }

    /// Puts the checkpoint that was found into weights and optimizer.
    func restore() throws {
        guard let found else { return }
        if let ranked { try ranked.restore(found) } else { try checkpoints().restore(found) }
        parts?.rollout?.weightVersion = found.state.weightVersion
        self.found = nil
    }

    func forgetCheckpoints() throws {
        try ranked?.removeAll()
        try store?.removeAll()
    }

    /// Replaces the weights by those of a run's newest whole checkpoint, for a worker that does not train.
    func loadWeights(checkpoints folder: String) throws {
        try TrainingCheckpoints.loadWeights(from: folder, into: loaded().model)
    }

    /// Writes the model as a Hugging Face folder, an adapter's product added.
    func export(to folder: String, maxShardBytes: Int) throws {
        let parts = try loaded()
        try ModelExport.write(
            model: parts.model, source: parts.source, config: exportedConfig(parts), to: folder,
            maxShardBytes: maxShardBytes)
    }

    /// What the trained model's `config.json` says; nil: what the source's does.
    private func exportedConfig(_ parts: Parts) throws -> ModelConfig? {
        guard case .scoring(let model) = parts.network else { return nil }
        return parts.source.config.withHead(
            architecture: model.architecture, labels: model.labels,
            padID: try Self.padID(parts.source, parts.text).map(Int.init))
    }
}
