import PolicyAlgorithms
import Collectives
import Flow
import OrderedCollections
import Telemetry

/// The policy over all ranks, as rank 0's loop sees it: each call is sent to the others as a command, done here too, and the answers
/// are put together.
actor RankedPolicy {
    private let worker: PolicyWorker
    private let members: RankMembership
    private let channel: RankChannel

    init(_ worker: PolicyWorker, _ members: RankMembership, _ channel: RankChannel) {
        self.worker = worker
        self.members = members
        self.channel = channel
    }

    /// Runs a command everywhere.
    private func together<Result: Sendable>(
        _ command: RankCommand, _ own: () async throws -> Result
    ) async throws -> (own: Result, answers: [RankAnswer]) {
        try await channel.send(command)
        let result = try await own()
        return (result, try await channel.collect())
    }

    func prepare(_ plan: TrainingPlan, totalSteps: Int) async throws {
        _ = try await together(.prepare(totalSteps: totalSteps)) { try await worker.prepare(plan) }
    }

    /// Tells the others that there is nothing more to do.
    func finish() async throws {
        _ = try await together(.finish) { try await worker.settleCheckpoints() }
        members.leave()
    }

    // MARK: - Rollout

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let clock = ContinuousClock(), start = clock.now
        let request = GenerationRequest(prompts, settings)
        let (own, answers) = try await together(.generate(request)) {
            try await worker.generateShare(request)
        }
        var shares = [own]
        for (rank, answer) in zip(1..., answers) {
            guard case .generated(let share) = answer else { throw unexpected(answer, rank) }
            guard share.weightDigest == own.weightDigest else {
                throw WorkerError(
                    .ranks,
                    "rank \(rank) samples from other weights than rank 0 (digests \(share.weightDigest) and "
                        + "\(own.weightDigest)): the ranks' updates differ; this is a fault of Fledge or of the machine"
                )
            }
            shares.append(share)
        }
        let seconds = max(1e-9, (clock.now - start) / .seconds(1))
        // Of ranks that sample together the first speaks.
        let together = worker.ranksPerSampler
        let samplers = stride(from: 0, to: shares.count, by: together).map { shares[$0] }
        return (
            try await worker.trajectories(prompts, n: settings.n, samplers),
            GenerationShare.metrics(samplers, ranks: shares, seconds: seconds)
        )
    }

    private func unexpected(_ answer: RankAnswer, _ rank: Int) -> WorkerError {
        WorkerError(.ranks, "rank \(rank) answered \(answer) to another command")
    }

    // MARK: - Actor and reference

    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await together(.logProbs(TrainingRows(trajectories))) { try await worker.logProbs(trajectories) }.own
    }

    nonisolated var reference: any ReferenceGroup { RankedReference(policy: self) }

    fileprivate func referenceLogProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await together(.referenceLogProbs(TrainingRows(trajectories))) {
            try await worker.referenceLogProbs(trajectories)
        }.own
    }

    /// They take microseconds: rank 0 alone.
    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) async throws -> AdvantageEstimate {
        try await worker.advantages(trajectories, klCoefficient: klCoefficient)
    }

    func sumsPiSquared(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await together(.sumsPiSquared(TrainingRows(trajectories))) {
            try await worker.sumsPiSquared(trajectories)
        }.own
    }

    nonisolated var critic: any CriticGroup { RankedCritic(policy: self) }

    fileprivate func values(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await together(.values(TrainingRows(trajectories))) { try await worker.values(trajectories) }.own
    }

    fileprivate func updateCritic(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await together(.updateCritic(TrainingRows(trajectories), seed: seed)) {
            try await worker.updateCritic(trajectories, seed: seed)
        }.own
    }

    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await together(.update(TrainingRows(trajectories), seed: seed)) {
            try await worker.update(trajectories, seed: seed)
        }.own
    }

    // MARK: - Checkpoints

    func save(step: Int, state: LoopState) async throws {
        _ = try await together(.save(step: step)) { try await worker.save(step: step, state: state) }
    }

    func restore() async throws -> LoopState? { try await restore(from: nil).state }

    func restore(from path: String?) async throws -> (state: LoopState?, skipped: [String]) {
        try await together(.restore(path: path)) { try await worker.restore(from: path) }.own
    }

    func forgetCheckpoints() async throws {
        _ = try await together(.forgetCheckpoints) { try await worker.forgetCheckpoints() }
    }
}

private struct RankedCritic: CriticGroup {
    let policy: RankedPolicy
    func values(_ trajectories: [Trajectory]) async throws -> [[Float]] { try await policy.values(trajectories) }
    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics {
        try await policy.updateCritic(trajectories, seed: seed)
    }
}

private struct RankedReference: ReferenceGroup {
    let policy: RankedPolicy
    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        try await policy.referenceLogProbs(trajectories)
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
