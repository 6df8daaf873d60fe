public import Logging
public import OrderedCollections
public import Telemetry

/// The synchronous loop of GRPO and its kin (Shao et al. 2024; the controller of HybridFlow, Sheng et al. 2024): sample, score,
/// estimate advantages, update. It knows nothing of tensors and talks to worker groups only.
public struct PolicyLoop: Sendable {
    public struct Settings: Sendable {
        public var totalSteps: Int
        public var rollout: RolloutRequestSettings
        public var seed: UInt64
        /// Steps between checkpoints; 0 or less: only at the end.
        public var saveEvery: Int
        /// Steps between evaluations; 0 or less: none on the way.
        public var evaluateEvery: Int
        public var evaluatesFirst: Bool
        public var learning: PolicyStep.Settings
        public var samplesLogged: Int

        public init(
            totalSteps: Int, rollout: RolloutRequestSettings, seed: UInt64, saveEvery: Int = 0, evaluateEvery: Int = 0,
            evaluatesFirst: Bool = true, learning: PolicyStep.Settings = .init(), samplesLogged: Int = 0
        ) {
            self.totalSteps = totalSteps
            self.rollout = rollout
            self.seed = seed
            self.saveEvery = saveEvery
            self.evaluateEvery = evaluateEvery
            self.evaluatesFirst = evaluatesFirst
            self.learning = learning
            self.samplesLogged = samplesLogged
        }
    }

    public let settings: Settings
    public let prompts: any PromptProvider
    public let sampling: GroupSampling
    public let actor: any ActorGroup
    public let learning: PolicyStep
    public let evaluator: (any Evaluator)?
    public let observer: any LoopObserver
    public let log: Logger

    public init(
        settings: Settings, prompts: any PromptProvider, rollout: any RolloutGroup, reward: any RewardGroup,
        actor: any ActorGroup, critic: (any CriticGroup)? = nil, reference: (any ReferenceGroup)? = nil,
        filter: GroupFilter? = nil, evaluator: (any Evaluator)? = nil,
        observer: any LoopObserver, log: Logger
    ) {
        self.settings = settings
        self.prompts = prompts
        sampling = GroupSampling(prompts: prompts, rollout: rollout, reward: reward, filter: filter, log: log)
        self.actor = actor
        learning = PolicyStep(actor: actor, critic: critic, reference: reference, settings: settings.learning)
        self.evaluator = evaluator
        self.observer = observer
        self.log = log
    }

    /// Trains to the last step, or until the observer asks to stop; goes on from `resumed` where there is one.
    public func run(from resumed: LoopState?) async throws -> LoopState {
        var state =
            if let resumed { resumed.goingOn(to: settings.totalSteps) } else {
                LoopState(step: 0, promptState: try await prompts.state())
            }
        if let resumed { try await prompts.restore(resumed.promptState) }
        var saved = resumed?.step
        if state.step == 0, settings.evaluatesFirst, state.evaluations.isEmpty {
            try await evaluate("before", &state)
        }
        let timer = PhaseTimer()
        while state.step < settings.totalSteps, !observer.wantsToStop {
            guard let batch = try await prompts.nextBatch() else { break }
            var metrics = StepMetrics(step: state.step + 1)
            try metrics.add(await prompts.metrics())
            let trajectories = try await step(batch, &state, &metrics, timer)
            state.step += 1
            state.promptState = try await prompts.state()
            try await evaluateOnTheWay(state.step, &metrics, timer)
            try finish(&metrics, trajectories, timer)
            if settings.saveEvery > 0, state.step % settings.saveEvery == 0, state.step < settings.totalSteps {
                try await timer.measure(.save) { [state] in try await save(state) }
                saved = state.step
            }
        }
        if state.step >= settings.totalSteps, !state.evaluations.keys.contains(where: { $0.hasPrefix("after:") }) {
            try await evaluate("after", &state)
        }
        if saved != state.step { try await save(state) }
        return state
    }

    /// The metrics of a step are on disk before a checkpoint that counts it done.
    func save(_ state: LoopState) async throws {
        try observer.phaseBegins(.save)
        try observer.willSave(state)
        try await actor.save(step: state.step, state: state)
    }

    /// One step, up to the update.
    private func step(
        _ batch: [PromptTask], _ state: inout LoopState, _ metrics: inout StepMetrics, _ timer: PhaseTimer
    ) async throws -> [Trajectory] {
        var request = settings.rollout
        request.seed = settings.seed &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(state.step)

        let sampled = try await sampling.sample(batch, request, metrics: &metrics, timer: timer, observer: observer)
        guard !sampled.kept.isEmpty else {
            let why = sampled.all.contains { $0.score != nil } ? "" : "every reward failed; "
            log.error("step \(metrics.step): \(why)nothing to learn from, the weights stay as they are")
            return sampled.all
        }
        try await learning.learn(
            sampled.kept, seed: request.seed, state: &state, metrics: &metrics, timer: timer, observer: observer)
        return sampled.all
    }

    func finish(_ metrics: inout StepMetrics, _ batch: [Trajectory], _ timer: PhaseTimer) throws {
        let times = timer.finishStep()
        let tokens = batch.reduce(0) { $0 + $1.prompt.tokens.count + $1.response.count }
        try metrics.add(times.metrics)
        try metrics.record("perf/total_num_tokens", Double(tokens))
        try metrics.record(.tokensPerSecond, Double(tokens) / (times.step / .seconds(1)))
        let samples = batch.prefix(settings.samplesLogged * settings.rollout.n)
            .enumerated().filter { $0.offset % settings.rollout.n == 0 }.map(\.element)
            .map {
                Sample(
                    prompt: $0.prompt.text, answer: $0.text, groundTruth: $0.prompt.groundTruth,
                    reward: $0.score ?? .nan)
            }
        try observer.stepEnded(metrics, samples: samples)
    }

    /// Every ``Settings/evaluateEvery`` steps, but for the last, which has a measure of its own.
    func evaluateOnTheWay(_ step: Int, _ metrics: inout StepMetrics, _ timer: PhaseTimer) async throws {
        guard settings.evaluateEvery > 0, step % settings.evaluateEvery == 0, step < settings.totalSteps,
            let evaluator
        else { return }
        try metrics.add(try await timer.measure(.evaluate) { try await evaluator.evaluate() })
    }

    func evaluate(_ name: String, _ state: inout LoopState) async throws {
        guard let evaluator else { return }
        try observer.phaseBegins(.evaluate)
        let result = try await evaluator.evaluate()
        for (metric, value) in result where !metric.dependsOnClock {
            state.evaluations["\(name):\(metric.text)"] = value
        }
        try observer.evaluated(name, result)
    }
}

/// Sees the loop go by: records, draws, and may ask it to stop after the step at hand.
public protocol LoopObserver: Sendable {
    var wantsToStop: Bool { get }
    func phaseBegins(_ phase: Phase) throws
    func stepEnded(_ metrics: StepMetrics, samples: [Sample]) throws
    func evaluated(_ name: String, _ metrics: PhaseMetrics) throws
    func willSave(_ state: LoopState) throws
}
