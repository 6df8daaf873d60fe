import Telemetry

/// What becomes of scored answers: log-probabilities, advantages, the update. Every loop, whatever its order of sampling and learning,
/// ends here.
public struct PolicyStep: Sendable {
    public let actor: any ActorGroup
    public let reference: (any ReferenceGroup)?
    /// Whether log-probabilities of the sampled answers are computed before the update, because several optimizer steps will be taken
    /// on one batch.
    public let recomputesOldLogProbs: Bool

    public init(actor: any ActorGroup, reference: (any ReferenceGroup)? = nil, recomputesOldLogProbs: Bool = false) {
        self.actor = actor
        self.reference = reference
        self.recomputesOldLogProbs = recomputesOldLogProbs
    }

    /// - Parameters:
    ///   - trajectories: answers that have a score.
    ///   - seed: decides the order of shuffled mini-batches.
    func learn(
        _ trajectories: [Trajectory], seed: UInt64, metrics: inout StepMetrics, timer: PhaseTimer,
        observer: any LoopObserver
    ) async throws {
        var kept = trajectories
        if recomputesOldLogProbs {
            try observer.phaseBegins(.oldLogProb)
            let old = try await timer.measure(.oldLogProb) { [kept] in try await actor.logProbs(kept) }
            for index in kept.indices { kept[index].oldLogProbs = old[index] }
        }
        if let reference {
            try observer.phaseBegins(.refLogProb)
            let ref = try await timer.measure(.refLogProb) { [kept] in try await reference.logProbs(kept) }
            for index in kept.indices { kept[index].refLogProbs = ref[index] }
        }

        let advantages = try await timer.measure(.advantage) { [kept] in try await actor.advantages(kept) }
        for index in kept.indices { kept[index].advantages = advantages[index] }
        try metrics.describe(advantages: kept)

        try observer.phaseBegins(.update)
        try metrics.add(try await timer.measure(.update) { [kept] in try await actor.update(kept, seed: seed) })
    }
}
