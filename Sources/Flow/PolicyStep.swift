import OrderedCollections
public import Telemetry

/// What becomes of scored answers: log-probabilities, values, advantages, the updates. Every loop, whatever its order of sampling and
/// learning, ends here.
public struct PolicyStep: Sendable {
    public struct Settings: Sendable, Hashable {
        /// Whether log-probabilities of the sampled answers are computed before the update: because several optimizer steps will be
        /// taken on one batch, or because something is made of them.
        public var recomputesOldLogProbs: Bool
        /// Whether advantages need Σπ² of every token's distribution.
        public var needsSumPiSquared: Bool
        /// Steps in which the critic alone learns.
        public var criticWarmup: Int
        /// Which of the others works on devices that the actor does not: then they work at the same time.
        public var criticIsApart = false, referenceIsApart = false

        public init(recomputesOldLogProbs: Bool = false, needsSumPiSquared: Bool = false, criticWarmup: Int = 0) {
            self.recomputesOldLogProbs = recomputesOldLogProbs
            self.needsSumPiSquared = needsSumPiSquared
            self.criticWarmup = criticWarmup
        }
    }

    public let actor: any ActorGroup
    public let critic: (any CriticGroup)?
    public let reference: (any ReferenceGroup)?
    public let settings: Settings

    public init(
        actor: any ActorGroup, critic: (any CriticGroup)? = nil, reference: (any ReferenceGroup)? = nil,
        settings: Settings = .init()
    ) {
        self.actor = actor
        self.critic = critic
        self.reference = reference
        self.settings = settings
    }

    /// - Parameters:
    ///   - trajectories: answers that have a score.
    ///   - seed: decides the order of shuffled mini-batches.
    ///   - state: its step decides whether the critic alone learns; gets the next coefficient of the KL penalty.
    public func learn(
        _ trajectories: [Trajectory], seed: UInt64, state: inout LoopState, metrics: inout StepMetrics,
        timer: PhaseTimer, observer: any LoopObserver
    ) async throws {
        var kept = trajectories
        try await score(&kept, timer, observer)

        let estimate = try await timer.measure(.advantage) { [kept, state] in
            try await actor.advantages(kept, klCoefficient: state.klCoefficient)
        }
        kept.take(estimate)
        state.klCoefficient = estimate.klCoefficient ?? state.klCoefficient
        try metrics.add(estimate.metrics)
        try metrics.describe(advantages: kept)

        let learned = kept, learnsPolicy = state.step >= settings.criticWarmup
        if critic != nil { try observer.phaseBegins(.updateCritic) }
        if settings.criticIsApart, learnsPolicy {
            try observer.phaseBegins(.update)
            async let ofCritic = updateCritic(learned, seed, timer)
            async let ofActor = update(learned, seed, timer)
            for part in try await [ofCritic, ofActor] { try metrics.add(part) }
            return
        }
        try metrics.add(try await updateCritic(learned, seed, timer))
        guard learnsPolicy else { return }
        try observer.phaseBegins(.update)
        try metrics.add(try await update(learned, seed, timer))
    }

    private func updateCritic(
        _ kept: [Trajectory], _ seed: UInt64, _ timer: PhaseTimer
    ) async throws -> PhaseMetrics {
        guard let critic else { return [:] }
        return try await timer.measure(.updateCritic) { try await critic.update(kept, seed: seed) }
    }

    private func update(_ kept: [Trajectory], _ seed: UInt64, _ timer: PhaseTimer) async throws -> PhaseMetrics {
        try await timer.measure(.update) { try await actor.update(kept, seed: seed) }
    }

    // MARK: - Scores

    /// What the models say of the answers as they are. Those on other devices than the actor's say it at the same time.
    private func score(
        _ kept: inout [Trajectory], _ timer: PhaseTimer, _ observer: any LoopObserver
    ) async throws {
        let rows = kept
        async let early = settings.referenceIsApart ? referenceLogProbs(rows, timer, observer) : nil
        async let foreseen = settings.criticIsApart ? values(rows, timer, observer) : nil
        let (old, sums) = try await ofActor(rows, timer, observer)
        var ref = try await early, values = try await foreseen
        if !settings.referenceIsApart { ref = try await referenceLogProbs(rows, timer, observer) }
        if !settings.criticIsApart { values = try await self.values(rows, timer, observer) }
        for index in kept.indices {
            if let old { kept[index].oldLogProbs = old[index] }
            if let sums { kept[index].sumPiSquared = sums[index] }
            if let ref { kept[index].refLogProbs = ref[index] }
            if let values { kept[index].values = values[index] }
        }
    }

    private func ofActor(
        _ kept: [Trajectory], _ timer: PhaseTimer, _ observer: any LoopObserver
    ) async throws -> (old: [[Float]]?, sums: [[Float]]?) {
        var old: [[Float]]?, sums: [[Float]]?
        if settings.recomputesOldLogProbs {
            try observer.phaseBegins(.oldLogProb)
            old = try await timer.measure(.oldLogProb) { try await actor.logProbs(kept) }
        }
        if settings.needsSumPiSquared {
            sums = try await timer.measure(.oldLogProb) { try await actor.sumsPiSquared(kept) }
        }
        return (old, sums)
    }

    private func referenceLogProbs(
        _ kept: [Trajectory], _ timer: PhaseTimer, _ observer: any LoopObserver
    ) async throws -> [[Float]]? {
        guard let reference else { return nil }
        try observer.phaseBegins(.refLogProb)
        return try await timer.measure(.refLogProb) { try await reference.logProbs(kept) }
    }

    private func values(
        _ kept: [Trajectory], _ timer: PhaseTimer, _ observer: any LoopObserver
    ) async throws -> [[Float]]? {
        guard let critic else { return nil }
        try observer.phaseBegins(.values)
        return try await timer.measure(.values) { try await critic.values(kept) }
    }
}

extension [Trajectory] {
    fileprivate mutating func take(_ estimate: AdvantageEstimate) {
        for index in indices {
            self[index].advantages = estimate.advantages[index]
            if let returns = estimate.returns { self[index].returns = returns[index] }
            if let weights = estimate.importanceWeights { self[index].importanceWeights = weights[index] }
            if let masks = estimate.responseMasks { self[index].responseMask = masks[index] }
        }
    }
}
