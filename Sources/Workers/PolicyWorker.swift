import PolicyAlgorithms
public import Checkpoints
import Collectives
public import Flow
import Foundation
public import Models
public import OrderedCollections
import RolloutCore
import RolloutEngine
import Telemetry
public import TensorCore
import TrainingEngine

/// The hybrid worker: samples from and trains one set of weights, on one thread of its own. It plays the rollout, actor and
/// reference roles of the loop.
public actor PolicyWorker: RolloutGroup, ActorGroup, ReferenceGroup {
    /// What a worker is made of, from the configuration.
    public struct Plan: Sendable {
        public var modelPath: String
        public var templatePath: String?
        public var dtype: DType
        public var device: Device
        public var checkpointing = ActivationCheckpointing.none
        /// Whether what checkpointed layers keep waits on the host; nothing happens where the device is the host.
        public var offloadsActivations = false
        public var engine = RolloutEngineSettings()
        public var ignoresEndOfTurn = false
        public var stop: [String] = []
        public var adapter: AdapterPlan?
        public var mergesAdapter = false
        /// The ranks that train together, and how they share the work; nil for this one alone.
        public var members: PoolMembers?
        public var layout: ShardingPlan?
        /// What it does of both; a worker that does one alone gives its weights to those that do the other, or gets theirs.
        public var trains = true, samples = true
        /// Of a sampler of a pool: samples to expect at a time, and the most tokens of a prompt with its answer.
        public var poolRows = 256, poolLongest = 4096
        /// Ends its link to samplers that are lost.
        let linkBreaker = LinkBreaker()

        public init(modelPath: String, dtype: DType, device: Device) {
            self.modelPath = modelPath
            self.dtype = dtype
            self.device = device
        }
    }

    struct Parts {
        let source: ModelSource
        let models: RankModels
        /// The model that is trained, or this rank's part of it.
        var model: any CausalLanguageModel { models.trained }
        let rollout: RolloutEngine
        let text: TextProcessor
        /// Those of the checkpoint's end tokens that the model can draw.
        var endIDs: Set<Int32> { text.endOfTurnIDs.filter { $0 < model.shape.vocabulary } }
    }

    private let executor: TensorExecutor
    let plan: Plan
    private var parts: Parts?
    private var trainingParts: TrainingParts?
    /// Where ranks train together.
    private var sampled: SampledWeights?
    private var digest: String?
    /// Of a rollout of several turns, while it is under way.
    var turns: TurnSession?
    /// Of the weights below an adapter, which never change.
    private var frozenDigest: UInt64?
    /// Where prompts come one by one.
    private(set) var continuous: ContinuousSampler?
    private var lastRequest = 0
    /// Somebody reads the weights.
    var isHandingOver = false
    /// To the ranks that sample, or from those that train, where those are others.
    var link: (number: Int, link: WeightLink)?

    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    public init(_ plan: Plan, executor: TensorExecutor = TensorExecutor()) {
        self.plan = plan
        self.executor = executor
    }

    /// Reads the model; until then no other call works.
    /// - Returns: the checkpoint's text half, for whoever makes prompts.
    @discardableResult
    public func load() throws -> TextProcessor {
        try plan.device.makeCurrent()
        let source = try ModelSource.open(plan.modelPath)
        let place = RankModels.Place(
            dtype: plan.dtype, device: plan.device, members: plan.members, layout: plan.layout, trains: plan.trains,
            samples: plan.samples)
        let models = try RankModels(place, source), model = models.trained
        try plan.adapter?.add(to: model)
        model.checkpointing = plan.checkpointing
        if plan.offloadsActivations, plan.device != .cpu {
            model.activationOffload = try ActivationOffload(device: plan.device)
        }
        let text = try TextProcessor(source, templatePath: plan.templatePath)
        let rollout = RolloutEngine(
            model: models.sampled, options: plan.engine.options(mergesAdapter: plan.mergesAdapter))
        rollout.makeDetokenizer = text.makeDetokenizer
        parts = Parts(source: source, models: models, rollout: rollout, text: text)
        return text
    }

    /// Makes the optimizer and what else training needs; a worker that only samples does without.
    public func prepare(_ plan: TrainingPlan) throws {
        let parts = try loaded()
        let layout = try self.plan.layout ?? ShardingPlan(plan.actor, plan.rollout, ranks: 1)
        let training = try TrainingParts(
            plan, models: parts.models, source: parts.source, sharding: layout.options, members: self.plan.members)
        sampled = training.trainer.parallel.map {
            SampledWeights($0.parameters, engine: parts.rollout, copy: parts.models.copy)
        }
        trainingParts = training
    }

    /// Runs `body` with the whole weights in the model that samples.
    private func withWholeWeights<Result>(_ body: () throws -> Result) throws -> Result {
        try sampled?.whole(body) ?? body()
    }

    func loaded() throws -> Parts {
        guard let parts else { throw WorkerError(.badSetting, "the policy worker was used before load()") }
        return parts
    }
    private func training() throws -> (Parts, TrainingParts) {
        let parts = try loaded()
        guard let trainingParts else {
            throw WorkerError(.badSetting, "the policy worker was asked to train before prepare(_:)")
        }
        return (parts, trainingParts)
    }

    // MARK: - Rollout

    public func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let clock = ContinuousClock(), start = clock.now
        let share = try generateShare(GenerationRequest(prompts, settings))
        let seconds = max(1e-9, (clock.now - start) / .seconds(1))
        return (
            GenerationShare.trajectories(prompts, n: settings.n, [share], try loaded().text),
            GenerationShare.metrics([share], seconds: seconds)
        )
    }

    /// The answers to this rank's prompts, one of as many as there are samplers. A prompt's place in the batch decides its draws,
    /// whoever makes them.
    func generateShare(_ request: GenerationRequest) throws -> GenerationShare {
        let samplers = plan.layout?.rollout, place = plan.members?.rank ?? 0
        var share = try withWholeWeights {
            try sampledShare(
                request, rank: samplers?.coordinate(.replicate, of: place) ?? 0, of: samplers?[.replicate] ?? 1)
        }
        share.reshard = sampled?.report
        return share
    }

    private func sampledShare(_ request: GenerationRequest, rank: Int, of count: Int) throws -> GenerationShare {
        let parts = try loaded(), settings = request.settings
        let requests = request.prompts.rows.enumerated().filter { $0.offset % count == rank }.map { index, prompt in
            RolloutRequest(
                prompt: prompt,
                sampling: sampling(settings, parts, seed: SplitMix64.seed(settings.seed, UInt64(index))))
        }
        let watch = plan.members?.watch
        let wanted = settings.groupsWanted.map { ($0 * requests.count + request.count - 1) / max(1, request.count) }
        let cut = StragglerCut(
            groups: requests.count, n: settings.n, wanted: wanted, share: settings.stragglerShare,
            tokens: settings.stragglerTokens)
        let groups = try parts.rollout.generate(
            requests,
            onToken: { token in
                watch?.tick()
                return cut.goesOn(request: token.request, sample: token.sample)
            }, onSample: { request, _, _ in cut.sampleEnded(request: request) })
        let lost = Set(cut.lost)
        let samples = groups.enumerated().filter { !lost.contains($0.offset) }.flatMap(\.element)
        let statistics = parts.rollout.statistics
        var share = GenerationShare(
            responses: PackedRows(samples.map(\.tokens)), logProbs: PackedRows(samples.map(\.logProbs)),
            isTruncated: samples.map { $0.finishReason == .length || $0.finishReason == .abort },
            weightVersions: samples.map(\.weightVersion),
            weightDigest: try weightDigest(), engineVersion: parts.rollout.weightVersion,
            promptTokens: statistics.promptTokens, prefilledTokens: statistics.prefilledTokens,
            generatedTokens: statistics.generatedTokens, decodeSteps: statistics.decodeSteps)
        share.lostGroups = cut.lost
        share.cutSamples = cut.cutSamples
        if sleepsAfterRollout {
            let slept = try parts.rollout.sleep()
            share.sleep = .init(
                milliseconds: slept.milliseconds, wakeMilliseconds: parts.rollout.lastWake.milliseconds,
                bytes: slept.bytes)
        }
        return share
    }

    // MARK: - Prompts one by one

    func continuousSampler() throws -> ContinuousSampler {
        if let continuous, continuous.broken == nil { return continuous }
        let sampler = try ContinuousSampler(loaded().rollout, rows: plan.poolRows, longest: plan.poolLongest)
        continuous = sampler
        return sampler
    }

    func nextRequest() -> Int {
        lastRequest += 1
        return lastRequest
    }

    func request(_ prompt: [Int32], _ settings: RolloutRequestSettings) throws -> RolloutRequest {
        RolloutRequest(prompt: prompt, sampling: sampling(settings, try loaded(), seed: settings.seed))
    }

    func trajectories(_ prompt: PromptTask, _ samples: [GeneratedSample]) throws -> [Trajectory] {
        let parts = try loaded(), digest = try weightDigest()
        return samples.map { sample in
            Trajectory(
                prompt: prompt, response: sample.tokens, text: parts.text.decode(sample.tokens),
                rolloutLogProbs: sample.logProbs, isTruncated: sample.finishReason == .length,
                weightVersion: sample.tokens.isEmpty ? parts.rollout.weightVersion : sample.weightVersion,
                weightDigest: digest)
        }
    }

    /// Weights came from elsewhere.
    func weightsChanged(digest: WeightDigest?) { self.digest = digest.map { "\($0)" } }

    /// What this rank keeps of the weights that it trains; nothing before ``prepare(_:)``.
    func trainedShards() throws -> [LocalShard] { try trainingParts?.trainer.parallel?.parameters.localShards() ?? [] }

    /// One answer, token by token, as text; stops when `onText` gives false.
    public func stream(
        _ prompt: [Int32], _ settings: RolloutRequestSettings, onText: @escaping @Sendable (String) -> Bool
    ) throws -> StreamedAnswer {
        let parts = try loaded()
        var detokenizer = StreamingText(parts.text)
        let request = RolloutRequest(prompt: prompt, sampling: sampling(settings, parts, seed: settings.seed))
        let samples = try parts.rollout.generate([request]) { token in
            // The token that ends the answer is not part of its text.
            guard !parts.text.endOfTurnIDs.contains(token.token) else { return true }
            let piece = detokenizer.push(token.token)
            return piece.isEmpty || onText(piece)
        }
        let rest = detokenizer.flush()
        if !rest.isEmpty { _ = onText(rest) }
        let sample = samples[0][0]
        return StreamedAnswer(
            promptTokens: prompt.count, tokens: sample.tokens, logProbs: sample.logProbs,
            finishReason: sample.finishReason)
    }

    /// Numbers of the model that requests must keep to.
    func shape() throws -> ModelShape { try loaded().model.shape }

    /// The most tokens of a prompt with its answer.
    public func contextLength() throws -> Int { try loaded().model.shape.maxPositions }

    private func sampling(_ settings: RolloutRequestSettings, _ parts: Parts, seed: UInt64) -> SamplingParameters {
        SamplingParameters(
            n: settings.n, temperature: settings.temperature, topK: settings.topK, topP: settings.topP,
            minP: settings.minP, repetitionPenalty: settings.repetitionPenalty,
            presencePenalty: settings.presencePenalty, frequencyPenalty: settings.frequencyPenalty,
            maxTokens: settings.maxTokens, minTokens: min(settings.minTokens, settings.maxTokens),
            stopTokenIDs: plan.ignoresEndOfTurn ? [] : parts.endIDs, stop: plan.stop, seed: seed)
    }

    /// A digest of every weight's bytes, as 16 hexadecimal digits; computed once a weight version.
    public func weightDigest() throws -> String {
        if let digest { return digest }
        let text = try withWholeWeights { try wholeDigest(loaded().rollout.model) }
        digest = text
        return text
    }

    private func wholeDigest(_ model: any CausalLanguageModel) throws -> String {
        func mixed(_ start: UInt64, _ parameters: [Parameter]) throws -> UInt64 {
            try parameters.reduce(start) { SplitMix64.mix($0 ^ (try $1.tensor.digest())) }
        }
        var state = try frozenDigest ?? mixed(0, model.parameters)
        if let adapter = model.adapter {
            frozenDigest = state
            state = try mixed(state, adapter.parameters)
        }
        // Ranks that hold a part each have one digest, of all parts.
        if let group = model.parallel.tensor {
            state = try group.exchange(state, device: model.device).reduce(0) { SplitMix64.mix($0 ^ $1) }
        }
        let text = String(state, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }

    // MARK: - Actor

    public func logProbs(_ trajectories: [Trajectory]) throws -> [[Float]] {
        try training().1.trainer.scoreShared(trajectories.map(\.sequence)).logProbs
    }

    public func sumsPiSquared(_ trajectories: [Trajectory]) throws -> [[Float]] {
        try training().1.trainer.sumsPiSquaredShared(trajectories.map(\.sequence))
    }

    public func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) throws -> AdvantageEstimate {
        try training().1.estimation(trajectories, klCoefficient: klCoefficient)
    }

    public func update(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        let (parts, training) = try training()
        precondition(!isHandingOver, "the weights are stepped while samplers read them")
        let before = parts.model.activationOffload?.statistics
        var metrics = try training.update(trajectories, seed: seed)
        if let before, let after = parts.model.activationOffload?.statistics {
            metrics["actor/offloaded_bytes"] = Double(after.sentBytes - before.sentBytes)
            metrics["actor/offload_pinned_bytes"] = Double(after.pinnedBytes)
        }
        parts.rollout.weightVersion += 1
        digest = nil
        return metrics
    }

    public func save(step: Int, state: LoopState) throws { try savePart(step: step, state: state) }

    /// This rank's part of a checkpoint, written while training goes on; of one process all of it.
    /// - Parameters:
    ///   - state: of the loop, which the first rank alone knows.
    ///   - criticSteps: those of a critic elsewhere.
    func savePart(step: Int, state: LoopState?, criticSteps: Int? = nil) throws {
        let (parts, training) = try training(), version = parts.rollout.weightVersion
        try training.checkpointing(restores: false) {
            if let ranked = training.ranked {
                try ranked.save(step: step, state: state, weightVersion: version, criticSteps: criticSteps)
            } else if let state {
                try saved(parts, training).save(step: step, state: state, weightVersion: version)
            }
        }
    }

    public func restore() throws -> LoopState? { try restore(from: nil).state }

    /// Goes on from the checkpoint at `path`, or from the newest whole one of the run's own folder.
    /// - Returns: its state, and what was passed over because it is damaged.
    func restore(from path: String?) throws -> (state: LoopState?, skipped: [String]) {
        let (parts, training) = try training()
        let (found, skipped) = try training.checkpointing(restores: true) {
            try training.ranked?.restore(from: path) ?? saved(parts, training).restore(from: path)
        }
        guard let found else { return (nil, skipped) }
        parts.rollout.weightVersion = found.weightVersion
        digest = nil
        return (found.loop, skipped)
    }

    private func saved(_ parts: Parts, _ training: TrainingParts) -> TrainingCheckpoints {
        TrainingCheckpoints(
            store: training.store, optimizer: training.trainer.optimizer, model: parts.model, source: parts.source,
            critic: training.critic?.optimizer)
    }

    /// Removes the checkpoints of an earlier run in the same folder, so that a later resume cannot take one of them.
    func forgetCheckpoints() throws {
        let training = try training().1
        try training.ranked?.removeAll()
        try training.store?.removeAll()
    }

    /// Waits until the checkpoint under way is whole.
    func settleCheckpoints() throws { try trainingParts?.ranked?.settle() }

    // MARK: - Critic

    public nonisolated var critic: any CriticGroup { WorkerCritic(worker: self) }

    func values(_ trajectories: [Trajectory]) throws -> [[Float]] { try training().1.values(trajectories) }

    func updateCritic(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        try training().1.updateCritic(trajectories, seed: seed)
    }

    // MARK: - Reference

    /// log-probabilities under the model as it was before training.
    public nonisolated var reference: any ReferenceGroup { FrozenReference(worker: self) }

    func referenceLogProbs(_ trajectories: [Trajectory]) throws -> [[Float]] {
        try training().1.referenceLogProbs(trajectories.map(\.sequence))
    }

    /// Writes the model as a Hugging Face folder; where it has an adapter, that alone in PEFT's format, unless it is to be merged.
    public func export(
        to folder: String, merging: Bool = false, maxShardBytes: Int = SafetensorsWriter.defaultShardBytes
    ) throws {
        let parts = try loaded()
        if let adapter = parts.model.adapter, !merging {
            try PEFTFolder.write(adapter, base: plan.modelPath, to: folder)
        } else {
            try ModelExport.write(model: parts.model, source: parts.source, to: folder, maxShardBytes: maxShardBytes)
        }
    }

    /// What an adapter trains, in a sentence or two; nil without one.
    public func adapterSummary() throws -> String? {
        let optimizer = trainingParts?.trainer.optimizer
        return try loaded().model.adapterSummary.map { summary in
            summary + (optimizer.map { "; the optimizer keeps \($0.stateBytes.roundedMegabytes) MB" } ?? "")
        }
    }

    /// What the optimizer keeps and where, and what of its settings changes nothing; nothing before ``prepare(_:)``.
    public func optimizerSummary() -> [String] {
        guard let optimizer = trainingParts?.trainer.optimizer else { return [] }
        let critic = trainingParts?.critic?.optimizer
        return [optimizer.summary] + optimizer.notes + (critic.map { ["critic: " + $0.summary] } ?? [])
            + [trainingParts?.turnNote, cacheNote].compactMap { $0 }
    }

    /// Runs `body` on the worker's thread with its engine, and what makes a request's sampling of settings and a seed.
    func withEngine<Result>(
        _ body: (RolloutEngine, (RolloutRequestSettings, UInt64) -> SamplingParameters) throws -> Result
    ) throws -> Result {
        let parts = try loaded()
        return try body(parts.rollout) { sampling($0, parts, seed: $1) }
    }

    /// Whether the cache's memory goes to training now: as asked for, or where it is more than there is room for beside training. An
    /// evaluation may have made it larger than a training batch needs.
    var sleepsAfterRollout: Bool {
        if let said = plan.engine.freesCacheBetween { return said }
        guard let limit = trainingParts?.plan.cacheLimit, let parts else { return true }
        return parts.rollout.cacheBytes > limit
    }

    /// What the sampler does between rollouts where nobody has said it, a sentence.
    private var cacheNote: String? {
        guard plan.trains, plan.samples, plan.engine.freesCacheBetween == nil, let training = trainingParts?.plan else {
            return nil
        }
        return training.cacheLimit.map {
            "the sampler stays awake while the policy learns, with a cache of up to \(PlanText.gib($0))"
        } ?? "the sampler sleeps while the policy learns: there is no room beside its cache"
    }

    /// Runs `body` on the worker's thread with its model.
    func withModel<Result: Sendable>(
        _ body: @Sendable (any CausalLanguageModel, Device) throws -> Result
    ) throws -> Result { try body(loaded().model, plan.device) }

    /// Replaces the weights by those of a run's newest whole checkpoint, for a worker that does not train.
    public func loadWeights(checkpoints folder: String) throws {
        let parts = try loaded()
        try TrainingCheckpoints.loadWeights(from: folder, into: parts.model)
        digest = nil
    }

    /// Seconds from `origin` to the first token that this worker drew; nil when there is none yet.
    func secondsToFirstToken(since origin: ContinuousClock.Instant) -> Double? {
        parts?.rollout.firstToken.map { (origin.duration(to: $0)) / .seconds(1) }
    }

}

extension PolicyWorker: BatchSampler {
    func sample(
        _ requests: [RolloutRequest], onToken: @escaping @Sendable () -> Bool,
        onSample: @escaping @Sendable (Int, Int, GeneratedSample) -> Void
    ) throws {
        _ = try loaded().rollout.generate(requests, onToken: { _ in onToken() }, onSample: onSample)
    }
}

private struct WorkerCritic: CriticGroup {
    let worker: PolicyWorker
    func values(_ trajectories: [Trajectory]) async throws -> [[Float]] { try await worker.values(trajectories) }
    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await worker.updateCritic(trajectories, seed: seed)
    }
}

private struct FrozenReference: ReferenceGroup {
    let worker: PolicyWorker
    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await worker.referenceLogProbs(trajectories)
    }
}

extension Trajectory {
    var sequence: TrainingSequence { TrainingSequence(prompt: prompt.tokens, response: response) }
    /// 1 at the tokens that are learned.
    var maskValues: [Float] { responseMask?.map { $0 ? 1 : 0 } ?? [Float](repeating: 1, count: response.count) }
}
