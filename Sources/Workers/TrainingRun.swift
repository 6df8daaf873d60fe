public import Cluster
import Collectives
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
    /// The ranks of the run, whose controller this process is; nil for a run of one process.
    public let ranks: WorkerGroup<RankWorker>?
    /// Of these ranks those that only sample, where they can be started anew while the others go on.
    public let samplers: RankGang?

    public init(
        config: RunConfig, log: Logger, versions: OrderedDictionary<String, String>,
        view: (@Sendable (_ totalSteps: Int) -> LiveView)? = nil, ranks: WorkerGroup<RankWorker>? = nil,
        samplers: RankGang? = nil
    ) {
        self.ranks = ranks
        self.samplers = samplers
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
        let plan = try ranks == nil ? RunPlan(config) : RunPlan(controlling: config)
        plan.limitThreads(ranks: ranks?.count ?? 1)
        if config.trainer.deterministic { Torch.useDeterministicAlgorithms(true) }

        // What can fail cheaply comes first: the reward file, the data, then the weights.
        let groups = try config.mapping.flatMap { mapping in try ranks.map { try RankGroups($0, mapping) } }
        return try await RunServices.with(plan, log, ranks: groups) { try await run(plan, $0, groups, onStart) }
    }

    private func run(
        _ plan: RunPlan, _ services: RunServices, _ pools: RankGroups?, _ onStart: @Sendable (RunObserver) -> Void
    ) async throws -> Outcome {
        let start = ContinuousClock.now
        let data = try DataSources(config)
        let loading = try await load(plan, pools), text = loading.text
        let prompts = try data.prepare(config, services.encoder(text, config), log)
        try folder.create()
        let policy = loading.policy, loaded = try await loading.loaded()
        var training = plan.training(totalSteps: prompts.totalSteps, checkpoints: folder.checkpoints)
        if ranks == nil { try plan.takeTurns(&training) }
        for line in try await policy.prepare(training, totalSteps: prompts.totalSteps) { log.info("\(line)") }
        let samplers = try plan.samplers()
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for sampler in samplers ?? [] { tasks.addTask { try await sampler.load() } }
            try await tasks.waitForAll()
        }

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
                device: loaded.device, versions: versions, heldOutExactMatch: resumed?.exactMatch),
            progress: policy as? any PhaseListener)
        try observer.finish { _ in }
        onStart(observer)

        let rewards = services.worker(config)
        let rollout = try await services.rollout(config, policy, contextLength: loaded.contextLength, text, log)
        let ahead = try pool(policy, samplers, text).map {
            try services.pool(config, $0, contextLength: loaded.contextLength, text)
        }
        var scoring: any RewardGroup = try rewards.punishing(config.reward.overlongBuffer)
        if config.algorithm.advantageEstimator == "remax" {
            scoring = GreedyBaseline(
                scoring, rollout: ahead.map { PoolRollout(pool: $0) } ?? rollout, settings: plan.sampling)
        }
        let evaluator = HeldOutEvaluator(
            prompts: prompts.heldOut, rollout: rollout, settings: plan.validation, reward: rewards,
            batchSize: config.data.valBatchSize ?? prompts.heldOut.count)
        var settings = plan.loop(totalSteps: prompts.totalSteps)
        settings.learning.criticIsApart = config.mapping?.parts(.actor, .critic) ?? false
        settings.learning.referenceIsApart = config.mapping?.parts(.actor, .reference) ?? false
        let loop = PolicyLoop(
            settings: settings, prompts: prompts.pipeline, rollout: rollout,
            reward: scoring, actor: policy, critic: config.hasCritic ? policy.critic : nil,
            reference: config.needsReferenceModel ? policy.reference : nil, filter: plan.filter,
            evaluator: prompts.heldOut.isEmpty ? nil : evaluator, observer: observer, log: log)
        do {
            let state: LoopState
            if let ahead, let overlap = plan.overlap {
                state = try await OverlappedLoop(loop, pool: ahead, overlap: overlap).run(from: resumed)
            } else {
                state = try await loop.run(from: resumed)
            }
            let firstToken = try await policy.finish()
            let seconds = (ContinuousClock.now - start) / .seconds(1)
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

    /// Samplers that work while the policy learns; nil where they take turns.
    private func pool(
        _ policy: any TrainedPolicy, _ samplers: [PolicyWorker]?, _ text: TextProcessor
    ) -> (any RolloutPool)? {
        if let samplers, let trainer = policy as? PolicyWorker {
            return SamplerPool(trainer: trainer, samplers: samplers)
        }
        guard let ranked = policy as? RankedPolicy, let delivery = ranked.delivery, delivery.samplesAhead else {
            return nil
        }
        return RankedSamplerPool(
            samplers: SamplerRanks(ranked.groups[.rollout], text), delivery: delivery, restarts: ranked.restarts)
    }

    /// A policy that is loaded, or that its ranks load meanwhile.
    private struct Loading {
        var policy: any TrainedPolicy
        var text: TextProcessor
        /// Waits until it is loaded, and says on what.
        var loaded: () async throws -> LoadPolicy.Answer
    }

    private func load(_ plan: RunPlan, _ pools: RankGroups?) async throws -> Loading {
        guard let ranks else {
            for note in try plan.notes + plan.checkMemory() { log.warning("\(note)") }
            let worker = PolicyWorker(try plan.policy(nil))
            let text = try await worker.load(), length = try await worker.contextLength()
            return Loading(policy: worker, text: text) {
                LoadPolicy.Answer(device: plan.device.description, notes: [], contextLength: length)
            }
        }
        let groups = try pools ?? RankGroups(ranks, nil), samplers = groups[.rollout].count
        // Says what does not divide before any rank starts.
        let sharding = try ShardingPlan(sampling: config.rollout, ranks: samplers)
        _ = try ShardingPlan(
            config.actor, config.rollout, ranks: groups[.actor].count, samples: samplers == ranks.count)
        let text = try TextProcessor(at: config.model.path, templatePath: config.model.chatTemplate)
        let policy = RankedPolicy(
            groups, text: text, ranksPerSampler: sharding.rollout[.tensor],
            samplesAhead: config.async.mode != .synchronous,
            estimation: try HostEstimation(plan.training(totalSteps: 1, checkpoints: nil)),
            restarts: self.samplers.map { gang in
                { SamplerRestarts(gang, groups, $0, most: config.rollout.maxRestarts, log: log) }
            })
        let pending = try groups.pools.map { try $0.group.issue(LoadPolicy(), .broadcast, .first) }
        return Loading(policy: policy, text: text) { [log] in
            let loaded = try await RankGroups.all(pending)
            for note in loaded.flatMap(\.notes) { log.warning("\(note)") }
            // Nobody may be given more than each can take.
            return LoadPolicy.Answer(
                device: loaded[0].device, notes: [], contextLength: loaded.map(\.contextLength).min() ?? 0)
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
