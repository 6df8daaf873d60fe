import Collectives
import Config
import Flow
import OrderedCollections
import Telemetry

/// The policy over all ranks, as the controller's loop sees it: calls on the groups that have the roles, whose answers are put together.
struct RankedPolicy: Sendable {
    let groups: RankGroups
    let text: TextProcessor
    /// Ranks that sample together; what they sample is the same.
    let ranksPerSampler: Int
    let estimation: HostEstimation
    /// The samplers' weights, where those are not the ones that are trained.
    let delivery: Delivery?
    /// nil where the samplers are lost with the others.
    let restarts: SamplerRestarts?
    /// What the ranks of each pool keep, in the order of ``groups``.
    private let ledgers: [RowsLedger]

    /// - Parameters:
    ///   - samplesAhead: whether answers are drawn prompt by prompt, beside learning.
    ///   - restarts: what starts samplers anew, of their delivery.
    init(
        _ groups: RankGroups, text: TextProcessor, ranksPerSampler: Int, samplesAhead: Bool = false,
        estimation: HostEstimation, restarts: ((Delivery) -> SamplerRestarts)? = nil
    ) {
        self.groups = groups
        self.text = text
        self.ranksPerSampler = ranksPerSampler
        self.estimation = estimation
        delivery =
            groups.parts(.actor, .rollout)
            ? Delivery(groups, samplesAhead: samplesAhead, survivesLosses: restarts != nil) : nil
        self.restarts = delivery.flatMap { restarts?($0) }
        ledgers = groups.pools.map { _ in RowsLedger() }
    }

    private func ledger(_ role: Role) -> RowsLedger { ledgers[groups.place(of: role) ?? 0] }

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        guard let restarts else { return try await drawn(prompts, settings) }
        return try await restarts.surviving { try await drawn(prompts, settings) }
    }

    private func drawn(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        if let delivery, delivery.samplesAhead {
            try await delivery.install(version: delivery.step)
            return (try await SamplerRanks(groups[.rollout], text).answers(prompts, settings), [:])
        }
        let delivered = try await delivery?.install(version: nil)
        let clock = ContinuousClock(), start = clock.now
        let shares = try await groups[.rollout].call(GenerateShare(request: GenerationRequest(prompts, settings)))
        for (rank, share) in shares.enumerated() where share.weightDigest != shares[0].weightDigest {
            throw WorkerError(
                .ranks,
                "rank \(rank) samples from other weights than rank 0 (digests \(share.weightDigest) and "
                    + "\(shares[0].weightDigest)): the ranks' updates differ; this is a fault of Fledge or of the machine"
            )
        }
        for (rank, share) in shares.enumerated() {
            try delivery?.check(share.engineVersion, of: "rank \(rank) of the samplers")
        }
        let seconds = max(1e-9, (clock.now - start) / .seconds(1))
        // Of ranks that sample together the first speaks.
        let samplers = stride(from: 0, to: shares.count, by: ranksPerSampler).map { shares[$0] }
        var metrics = GenerationShare.metrics(samplers, ranks: shares, seconds: seconds)
        for (name, value) in delivered ?? [:] { metrics[name] = value }
        return (GenerationShare.trajectories(prompts, n: settings.n, samplers, text), metrics)
    }

    // MARK: - Actor and reference

    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await score(trajectories, .logProbs, .actor)
    }

    var reference: any ReferenceGroup { RankedReference(policy: self) }

    fileprivate func score(
        _ trajectories: [Trajectory], _ quantity: ScoreRows.Quantity, _ role: Role
    ) async throws -> [[Float]] {
        let group = groups[role], ledger = ledger(role)
        let (pending, id) = try ledger.send(trajectories, []) { rows in
            (try group.issue(ScoreRows(quantity: quantity, rows: rows), .broadcast, .all), rows.id)
        }
        let answers = try await pending.value, scores = answers[0].scores?.rows ?? []
        // Where ranks computed other bits than the first, they get its own with the update.
        if let column = quantity.column, answers.allSatisfy({ $0.digest == answers[0].digest }) {
            ledger.keeps(column, scores, of: id)
        }
        return scores
    }

    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) async throws -> AdvantageEstimate {
        try await estimation.advantages(trajectories, klCoefficient: klCoefficient)
    }

    func sumsPiSquared(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await score(trajectories, .sumsPiSquared, .actor)
    }

    var critic: any CriticGroup { RankedCritic(policy: self) }

    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        delivery?.changed()
        return try await update(
            .actor, trajectories, seed, of: .actor,
            [.rolloutLogProbs, .advantages, .oldLogProbs, .refLogProbs, .importanceWeights, .responseMask])
    }

    fileprivate func update(
        _ model: UpdateModel.Model, _ trajectories: [Trajectory], _ seed: UInt64, of role: Role,
        _ columns: Set<RowColumn>
    ) async throws -> PhaseMetrics {
        let group = groups[role]
        let pending = try ledger(role).send(trajectories, columns) { rows in
            try group.issue(UpdateModel(model: model, rows: rows, seed: seed), .broadcast, .first)
        }
        return PhaseMetrics(
            uniqueKeysWithValues: try await pending.value.map { (try MetricName($0.name), $0.value) })
    }

    // MARK: - Checkpoints

    func save(step: Int, state: LoopState) async throws {
        let apart = groups.parts(.actor, .critic)
        let steps = try await apart ? groups[.critic].call(CountCriticSteps(), .broadcast, .first) : nil
        _ = try await groups.call(
            SavePolicy(step: step, state: state, criticSteps: steps), .nothing, on: groups.learning)
    }

    func restore() async throws -> LoopState? { try await restore(from: nil).state }

    func restore(from path: String?) async throws -> (state: LoopState?, skipped: [String]) {
        delivery?.changed()
        let found = try await groups.call(RestorePolicy(path: path), .first, on: groups.learning)
        let policy = found.first { $0.state != nil }
        return (policy?.state, found.flatMap(\.skipped))
    }

    func forgetCheckpoints() async throws {
        _ = try await groups.call(ForgetCheckpoints(), .nothing, on: groups.learning)
    }

    // MARK: - Beginning and end

    func prepare(_ plan: TrainingPlan, totalSteps: Int) async throws -> [String] {
        zip(
            groups.learning,
            try await groups.call(PreparePolicy(totalSteps: totalSteps), .first, on: groups.learning)
        ).flatMap { pool, notes in
            notes.map { note in pool.name.map { "pool \($0): \(note)" } ?? note }
        }
    }

    /// Tells all that there is nothing more to do.
    func finish() async throws -> Double? {
        // Those that are lost now have nothing to do any more, but leave in good order once they are there again.
        if let restarts { try await restarts.surviving { _ = try await groups[.rollout].call(ReachTurn()) } }
        let ages = try await groups.call(FinishRun(), .all).joined().compactMap(\.secondsSinceFirstToken)
        return ages.max().map { ProcessStart.instant.duration(to: .now) / .seconds(1) - $0 }
    }
}

extension RankedPolicy: PhaseListener {
    /// Behind the calls before it and before those after it, on the pools that have to do with it. What is wrong with a rank the next
    /// call tells.
    func enter(_ place: RankProgress.Place) {
        delivery?.enter(place)
        let roles: Set<Role> =
            switch Phase(rawName: place.phase) {
            case .generate?, .evaluate?, .syncWeights?: [.rollout, .actor]
            case .oldLogProb?, .update?: [.actor]
            case .refLogProb?: [.reference]
            case .values?, .updateCritic?: [.critic]
            case .save?: [.actor, .critic]
            default: Set(Role.allCases)
            }
        for pool in groups.pools where !pool.roles.isDisjoint(with: roles) {
            _ = try? pool.group.issue(EnterPhase(place: place), .broadcast, .nothing)
        }
    }
}

extension Phase {
    fileprivate init?(rawName: String) {
        guard let phase = try? Phase(rawName) else { return nil }
        self = phase
    }
}

private struct RankedReference: ReferenceGroup {
    let policy: RankedPolicy
    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await policy.score(trajectories, .referenceLogProbs, .reference)
    }
}

private struct RankedCritic: CriticGroup {
    let policy: RankedPolicy
    func values(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await policy.score(trajectories, .values, .critic)
    }
    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await policy.update(.critic, trajectories, seed, of: .critic, [.values, .returns, .responseMask])
    }
}
