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
        if settings.recomputesOldLogProbs {
            try observer.phaseBegins(.oldLogProb)
            let old = try await timer.measure(.oldLogProb) { [kept] in try await actor.logProbs(kept) }
            for index in kept.indices { kept[index].oldLogProbs = old[index] }
        }
        if settings.needsSumPiSquared {
            let sums = try await timer.measure(.oldLogProb) { [kept] in try await actor.sumsPiSquared(kept) }
            for index in kept.indices { kept[index].sumPiSquared = sums[index] }
        }
        if let reference {
            try observer.phaseBegins(.refLogProb)
            let ref = try await timer.measure(.refLogProb) { [kept] in try await reference.logProbs(kept) }
            for index in kept.indices { kept[index].refLogProbs = ref[index] }
        }
        if let critic {
            try observer.phaseBegins(.values)
            let values = try await timer.measure(.values) { [kept] in try await critic.values(kept) }
            for index in kept.indices { kept[index].values = values[index] }
        }

        let estimate = try await timer.measure(.advantage) { [kept, state] in
            try await actor.advantages(kept, klCoefficient: state.klCoefficient)
        }
        kept.take(estimate)
        state.klCoefficient = estimate.klCoefficient ?? state.klCoefficient
        try metrics.add(estimate.metrics)
        try metrics.describe(advantages: kept)

        if let critic {
            try observer.phaseBegins(.updateCritic)
            try metrics.add(
                try await timer.measure(.updateCritic) { [kept] in try await critic.update(kept, seed: seed) })
        }
        guard state.step >= settings.criticWarmup else { return }
        try observer.phaseBegins(.update)
        try metrics.add(try await timer.measure(.update) { [kept] in try await actor.update(kept, seed: seed) })
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
