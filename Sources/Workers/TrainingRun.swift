import PolicyAlgorithms
public import Config
public import Flow
import Foundation
public import Logging
public import OrderedCollections
import Rewards
public import Telemetry
import TensorCore

/// A run, from a configuration to its result.
public struct TrainingRun: Sendable {
    public let config: RunConfig
    public let folder: RunFolder
    public let log: Logger
    /// Where progress is drawn; nil for none.
    public let view: (@Sendable (_ totalSteps: Int) -> LiveView)?
    /// Of Fledge and what it stands on, for the record.
    public let versions: OrderedDictionary<String, String>
    /// The ranks of the run, of which this process is the first; nil for a run of one process.
    public let members: RankMembership?

    public init(
        config: RunConfig, log: Logger, versions: OrderedDictionary<String, String>,
        view: (@Sendable (_ totalSteps: Int) -> LiveView)? = nil, members: RankMembership? = nil
    ) {
        self.members = members
        self.config = config
        self.log = log
        self.versions = versions
        self.view = view
        folder = RunFolder(config.runFolder)
    }

    /// The names that a configuration may use: those of the registries.
    public static var knownNames: KnownNames {
        let spread: Set<String> = ["optimal_token_baseline", "tir_optimal_token_baseline"]
        return KnownNames(
            advantageEstimators: AdvantageEstimators.all.keys.sorted(),
            groupAdvantageEstimators: spread.union([
                "grpo", "grpo_vectorized", "grpo_passk", "gdpo", "rloo", "rloo_vectorized", "opo",
            ]),
            policyLosses: PolicyLosses.all.keys.sorted(), spreadAdvantageEstimators: spread,
            rejectionRules: RejectionRule.names, rewards: RewardRegistry.builtIn.entries.map(\.name))
    }

    /// What a run came to.
    public struct Outcome: Sendable {
        public var state: LoopState
        public var totalSteps: Int
        /// The step that the run went on from; nil for a new one.
        public var resumedStep: Int?
        public var wasStopped: Bool { state.step < totalSteps }
    }

    /// Trains. `onStart` gets the observer, so that a signal handler can ask it to stop.
    public func run(onStart: @Sendable (RunObserver) -> Void = { _ in }) async throws -> Outcome {
        let plan = try RunPlan(config, localRank: members.map { _ in 0 })
        for note in plan.notes { log.warning("\(note)") }
        plan.limitThreads(ranks: members?.size ?? 1)
        if config.trainer.deterministic { Torch.useDeterministicAlgorithms(true) }

        // What can fail cheaply comes first: the reward file, the data, then the weights.
        return try await RunServices.with(plan, log) { try await run(plan, $0, onStart) }
    }

    private func run(
        _ plan: RunPlan, _ services: RunServices, _ onStart: @Sendable (RunObserver) -> Void
    ) async throws -> Outcome {
        let start = ContinuousClock.now
        let data = try DataSources(config)
        for warning in try plan.checkMemory(ranks: members?.size ?? 1) { log.warning("\(warning)") }
        let worker = PolicyWorker(try plan.policy(members))
        let text = try await worker.load()
        let prompts = try data.prepare(config, services.encoder(text, config), log)
        try folder.create()
        let training = plan.training(totalSteps: prompts.totalSteps, checkpoints: folder.checkpoints)
        let policy: any TrainedPolicy =
            if let members { RankedPolicy(worker, members, try RankChannel(members)) } else { worker }
        try await policy.prepare(training, totalSteps: prompts.totalSteps)
        let samplers = try plan.samplers()
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for sampler in samplers ?? [] { tasks.addTask { try await sampler.load() } }
            try await tasks.waitForAll()
        }
        if let summary = try await worker.adapterSummary() { log.info("\(summary)") }
        for line in await worker.optimizerSummary() { log.info("\(line)") }

        let resumed = try await resume(policy)?.goingOn(to: prompts.totalSteps)
        let recorder = try RunRecorder(
            folder, resumingAfter: resumed?.step ?? (folder.holdsRun ? -1 : nil),
            writesTensorBoard: config.trainer.logger.contains(.tensorboard))
        try folder.write(config: config.resolvedYAML())
        let view = view?(prompts.totalSteps)
        if resumed != nil, let view {
            view.replay(
                try MetricsHistory(reading: folder.metrics).steps.map { StepView($0, totalSteps: prompts.totalSteps) })
        }
        let observer = RunObserver(
            folder: folder, recorder: recorder, view: view,
            summary: RunSummary(
                status: .running, steps: resumed?.step ?? 0, totalSteps: prompts.totalSteps, model: config.model.path,
                device: plan.device.description, versions: versions, heldOutExactMatch: resumed?.exactMatch),
            progress: members?.progress)
        try observer.finish { _ in }
        onStart(observer)

        let rewards = services.worker(config)
        let rollout = try await services.rollout(config, policy, worker, text, log)
        var scoring: any RewardGroup = try rewards.punishing(config.reward.overlongBuffer)
        if config.algorithm.advantageEstimator == "remax" {
            scoring = GreedyBaseline(scoring, rollout: rollout, settings: plan.sampling)
        }
        let evaluator = HeldOutEvaluator(
            prompts: prompts.heldOut, rollout: rollout, settings: plan.validation, reward: rewards,
            batchSize: config.data.valBatchSize ?? prompts.heldOut.count)
        let loop = PolicyLoop(
            settings: plan.loop(totalSteps: prompts.totalSteps), prompts: prompts.pipeline, rollout: rollout,
            reward: scoring, actor: policy, critic: config.hasCritic ? policy.critic : nil,
            reference: config.needsReferenceModel ? policy.reference : nil, filter: plan.filter,
            evaluator: prompts.heldOut.isEmpty ? nil : evaluator, observer: observer, log: log)
        do {
            let state: LoopState
            if let samplers, let overlap = plan.overlap {
                let pool = SamplerPool(trainer: worker, samplers: samplers)
                state = try await OverlappedLoop(loop, pool: pool, overlap: overlap).run(from: resumed)
            } else {
                state = try await loop.run(from: resumed)
            }
            try await policy.finish()
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            let firstToken = await worker.secondsToFirstToken(since: ProcessStart.instant)
            try observer.finish { summary in
                summary.status = state.step < prompts.totalSteps ? .interrupted : .finished
                summary.steps = state.step
                summary.heldOutExactMatch = state.exactMatch
                summary.times["time/run_s"] = seconds
                summary.times["time/first_token_s"] = firstToken
            }
            if config.trainer.logger.contains(.html) { try folder.writeReport() }
            return Outcome(state: state, totalSteps: prompts.totalSteps, resumedStep: resumed?.step)
        } catch {
            observer.failed(error, log)
            throw error
        }
    }

    private func resume(_ policy: any TrainedPolicy) async throws -> LoopState? {
        guard config.trainer.resumeMode != .disable else {
            try await policy.forgetCheckpoints()
            return nil
        }
        let (state, skipped) = try await policy.restore(from: config.trainer.resumeFromPath)
        log.note(resuming: state, skipped: skipped, folder)
        return state
    }
}

extension Logger {
    /// Says where a run goes on, and which checkpoints were passed over.
    func note(resuming state: LoopState?, skipped: [String], _ folder: RunFolder) {
        for reason in skipped { warning("\(reason)") }
        if let state {
            info("going on from step \(state.step)")
        } else if folder.holdsRun {
            notice("\(folder.path) holds a run without a whole checkpoint: it begins anew")
        }
    }
}

extension LoopState {
    /// The held-out rates among the evaluations, for the summary.
    var exactMatch: RunSummary.ExactMatch? {
        let before = evaluations["before:val/exact_match"], after = evaluations["after:val/exact_match"]
        return before == nil && after == nil ? nil : RunSummary.ExactMatch(before: before, after: after)
    }
}
