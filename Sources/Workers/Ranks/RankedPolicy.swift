import Collectives
import Flow
import OrderedCollections
import Telemetry
import TensorCore

/// The policy over all ranks, as the controller's loop sees it: calls on their group, whose answers are put together.
struct RankedPolicy: Sendable {
    let group: WorkerGroup<RankWorker>
    let text: TextProcessor
    /// Ranks that sample together; what they sample is the same.
    let ranksPerSampler: Int
    let estimation: HostEstimation

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let clock = ContinuousClock(), start = clock.now
        let shares = try await group.call(GenerateShare(request: GenerationRequest(prompts, settings)))
        for (rank, share) in shares.enumerated() where share.weightDigest != shares[0].weightDigest {
            throw WorkerError(
                .ranks,
                "rank \(rank) samples from other weights than rank 0 (digests \(share.weightDigest) and "
                    + "\(shares[0].weightDigest)): the ranks' updates differ; this is a fault of Fledge or of the machine"
            )
        }
        let seconds = max(1e-9, (clock.now - start) / .seconds(1))
        // Of ranks that sample together the first speaks.
        let samplers = stride(from: 0, to: shares.count, by: ranksPerSampler).map { shares[$0] }
        return (
            GenerationShare.trajectories(prompts, n: settings.n, samplers, text),
            GenerationShare.metrics(samplers, ranks: shares, seconds: seconds)
        )
    }

    // MARK: - Actor and reference

    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] { try await score(trajectories, .logProbs) }

    var reference: any ReferenceGroup { RankedReference(policy: self) }

    fileprivate func score(_ trajectories: [Trajectory], _ quantity: ScoreRows.Quantity) async throws -> [[Float]] {
        try await group.call(
            ScoreRows(quantity: quantity, rows: TrainingRows(trajectories)), .broadcast,
            .concat { $0?.rows ?? [] })
    }

    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) async throws -> AdvantageEstimate {
        try await estimation.advantages(trajectories, klCoefficient: klCoefficient)
    }

    func sumsPiSquared(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await score(trajectories, .sumsPiSquared)
    }

    var critic: any CriticGroup { RankedCritic(policy: self) }

    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await update(.actor, trajectories, seed)
    }

    fileprivate func update(
        _ model: UpdateModel.Model, _ trajectories: [Trajectory], _ seed: UInt64
    ) async throws -> PhaseMetrics {
        let told = try await group.call(
            UpdateModel(model: model, rows: TrainingRows(trajectories), seed: seed), .broadcast, .first)
        return PhaseMetrics(uniqueKeysWithValues: try told.map { (try MetricName($0.name), $0.value) })
    }

    // MARK: - Checkpoints

    func save(step: Int, state: LoopState) async throws {
        try await group.call(SavePolicy(step: step, state: state), .broadcast, .nothing)
    }

    func restore() async throws -> LoopState? { try await restore(from: nil).state }

    func restore(from path: String?) async throws -> (state: LoopState?, skipped: [String]) {
        let found = try await group.call(RestorePolicy(path: path), .broadcast, .first)
        return (found.state, found.skipped)
    }

    func forgetCheckpoints() async throws { try await group.call(ForgetCheckpoints(), .broadcast, .nothing) }

    // MARK: - Beginning and end

    func prepare(_ plan: TrainingPlan, totalSteps: Int) async throws -> [String] {
        try await group.call(PreparePolicy(totalSteps: totalSteps), .broadcast, .first)
    }

    /// Tells all that there is nothing more to do.
    func finish() async throws -> Double? {
        let ages = try await group.call(FinishRun()).compactMap(\.secondsSinceFirstToken)
        return ages.max().map { ProcessStart.instant.duration(to: .now) / .seconds(1) - $0 }
    }
}

extension RankedPolicy: PhaseListener {
    /// Behind the calls before it and before those after it. What is wrong with a rank the next call tells.
    func enter(_ place: RankProgress.Place) {
        _ = try? group.issue(EnterPhase(place: place), .broadcast, .nothing)
    }
}

private struct RankedReference: ReferenceGroup {
    let policy: RankedPolicy
    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await policy.score(trajectories, .referenceLogProbs)
    }
}

private struct RankedCritic: CriticGroup {
    let policy: RankedPolicy
    func values(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await policy.score(trajectories, .values)
    }
    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await policy.update(.critic, trajectories, seed)
    }
}

/// Advantages of whole batches, which take microseconds and no model: the controller makes them itself, on the host.
actor HostEstimation {
    private let executor = TensorExecutor()
    private let estimation: BatchEstimation

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ plan: TrainingPlan) throws {
        estimation = try BatchEstimation(
            plan.algorithm, rewardWeights: plan.rewardWeights, bypassesOldLogProbs: plan.bypassesOldLogProbs)
    }

    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) throws -> AdvantageEstimate {
        try estimation(trajectories, klCoefficient: klCoefficient)
    }
}

extension GenerationShare {
    /// Of all samplers' shares; where several ranks are one sampler, `ranks` are those of all of them.
    static func metrics(
        _ shares: [GenerationShare], ranks: [GenerationShare]? = nil, seconds: Double
    ) -> PhaseMetrics {
        let ranks = ranks ?? shares
        func sum(_ count: KeyPath<GenerationShare, Int>) -> Double {
            Double(shares.reduce(0) { $0 + $1[keyPath: count] })
        }
        let own = shares[0]
        var metrics: PhaseMetrics = [
            "rollout/generated_tokens": sum(\.generatedTokens),
            "rollout/prompt_tokens_shared": 1 - sum(\.prefilledTokens) / max(1, sum(\.promptTokens)),
            "rollout/decode_steps": Double(shares.map(\.decodeSteps).max() ?? 0),
            "rollout/weight_version": Double(own.engineVersion),
            // The digest's 32 low bits, exact as a double: two runs with equal weights print equal numbers.
            "rollout/weight_digest": Double(UInt32(truncatingIfNeeded: UInt64(own.weightDigest, radix: 16) ?? 0)),
            "perf/rollout_tokens_per_second": sum(\.generatedTokens) / seconds,
        ]
        let lost = shares.reduce(0) { $0 + $1.lostGroups.count }, cut = sum(\.cutSamples)
        if lost > 0 { metrics["rollout/lost_groups"] = Double(lost) }
        if cut > 0 { metrics["rollout/cut_samples"] = cut }
        let sleeps = ranks.compactMap(\.sleep)
        if !sleeps.isEmpty {
            metrics["perf/rollout_sleep_ms"] = sleeps.map(\.milliseconds).max()
            metrics["perf/rollout_wake_ms"] = sleeps.map(\.wakeMilliseconds).max()
            metrics["perf/rollout_freed_gib"] = Double(sleeps.reduce(0) { $0 + $1.bytes }) / 0x1p30
        }
        let reshards = ranks.compactMap(\.reshard)
        if !reshards.isEmpty {
            metrics["perf/reshard_bytes"] = Double(reshards.reduce(0) { $0 + $1.receivedBytes })
            metrics["perf/reshard_seconds"] = reshards.map(\.seconds).max()
            metrics["perf/reshard_peak"] = Double(reshards.map(\.peakExtraBytes).max() ?? 0)
        }
        return metrics
    }
}
