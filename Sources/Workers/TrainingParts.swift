import PolicyAlgorithms
import Checkpoints
import Collectives
public import Config
import Datasets
public import Flow
import Models
public import OrderedCollections
import Telemetry
import TensorCore
public import TrainingEngine

/// How a policy is trained, from the configuration.
public struct TrainingPlan: Sendable {
    public var actor: ActorSettings
    public var algorithm: AlgorithmSettings
    public var rollout: RolloutSettings
    public var optimizer: AdamW.Settings
    /// Optimizer steps of the whole run, for the learning rate's schedule.
    public var optimizerSteps: Int
    public var needsReference: Bool
    public var checkpointFolder: String?
    public var checkpointsKept: Int?
}

/// The trainer of a policy worker with everything it needs; lives on the worker's thread.
struct TrainingParts {
    let plan: TrainingPlan
    let trainer: PolicyTrainer
    let objective: PolicyObjective
    let estimator: any AdvantageEstimator
    /// The model as it was before training; nil where it is not needed, or lies below an adapter.
    private let reference: PolicyTrainer?
    /// Of a run of one process, if it keeps any.
    let store: CheckpointStore?
    /// Of a run of several ranks.
    let ranked: RankedCheckpoints?

    init(
        _ plan: TrainingPlan, models: RankModels, source: ModelSource,
        sharding: ShardingOptions = ShardingOptions(mode: .noShard)
    ) throws {
        self.plan = plan
        let model = models.trained, mesh = models.mesh
        if model.adapter == nil { try source.requireTrainableWeights() }
        try Self.checkTied(model, plan.optimizer)
        let actor = plan.actor, optim = actor.optim
        guard let makeLoss = PolicyLosses.all[actor.policyLoss] else {
            throw WorkerError(.badSetting, "actor.policy_loss: no loss is called '\(actor.policyLoss)'")
        }
        guard let makeEstimator = AdvantageEstimators.all[plan.algorithm.advantageEstimator] else {
            throw WorkerError(
                .badSetting, "algorithm.adv_estimator: no estimator is called '\(plan.algorithm.advantageEstimator)'")
        }
        objective = PolicyObjective(
            policyLoss: makeLoss(
                PolicyLossSettings(clipLow: actor.clipLow, clipHigh: actor.clipHigh, dualClip: actor.clipRatioC)),
            aggregation: try Self.aggregation(actor), entropyCoefficient: actor.entropyCoefficient,
            kl: actor.useKLLoss ? (try Self.estimator(actor.klLossType), actor.klLossCoefficient) : nil)
        estimator = makeEstimator(
            AdvantageSettings(
                normalizesByStd: plan.algorithm.normAdvantageByStd, gamma: plan.algorithm.gamma,
                lambda: plan.algorithm.lambda))
        let settings = PolicyTrainer.Settings(
            microBatchTokens: actor.ppoMaxTokenLenPerGPU, gradClip: actor.gradClip ?? 0,
            temperature: plan.rollout.temperature > 0 ? plan.rollout.temperature : 1, sharesPrefixes: actor.sharePrefix,
            skipsZeroAdvantages: objective.vanishesWithoutAdvantage && actor.routerAuxLossCoefficient == 0,
            routerAuxLossCoefficient: actor.routerAuxLossCoefficient,
            microBatchSequences: actor.useDynamicBatchSize ? nil : actor.ppoMicroBatchSizePerGPU)
        let schedule = LearningRateSchedule(optim, steps: plan.optimizerSteps)
        if let mesh {
            trainer = try PolicyTrainer.sharded(
                model, over: mesh, sharding: sharding, optimizer: plan.optimizer, schedule: schedule,
                settings: settings,
                axes: { GradientAxes($0) })
        } else {
            trainer = PolicyTrainer(
                model: model,
                optimizer: try AdamW(parameters: model.trainableParameters, settings: plan.optimizer),
                schedule: schedule,
                settings: settings)
        }
        // Read anew, so that it never shares the weights that are trained. Below an adapter those are never trained, and are the
        // reference themselves.
        if plan.needsReference, model.adapter == nil {
            let frozen = try ModelRegistry.load(
                source, dtype: model.dtype, device: model.device, parallel: model.parallel)
            let none = try AdamW(parameters: [], settings: .init())
            reference = PolicyTrainer(
                model: frozen, optimizer: none, schedule: schedule, settings: settings,
                parallel: try mesh.map { try DataParallel(frozen, trained: [], mesh: $0, sharding: sharding) })
        } else {
            reference = nil
        }
        if let parallel = trainer.parallel {
            store = nil
            ranked = try RankedCheckpoints(
                folder: plan.checkpointFolder, keepLast: plan.checkpointsKept, trainer: trainer, parallel: parallel,
                models: models, source: source)
        } else {
            ranked = nil
            store = try plan.checkpointFolder.map {
                try CheckpointStore(folder: $0, keepLast: plan.checkpointsKept ?? Int.max)
            }
        }
    }

    /// Two stages step an embedding that is the head too, and must round it alike.
    private static func checkTied(_ model: any CausalLanguageModel, _ optimizer: AdamW.Settings) throws(WorkerError) {
        guard let stages = model as? DecoderModel, stages.stage.count > 1, stages.tiesEmbeddings,
            model.dtype != .float32, !optimizer.keepsMasters, optimizer.roundsStochastically
        else { return }
        throw WorkerError(
            .badSetting,
            "actor.megatron.pipeline_model_parallel_size: the embedding is the head too, on another stage, where chance would round "
                + "it otherwise; make model.param_dtype float32, or actor.optim.stochastic_rounding false")
    }

    private static func aggregation(_ actor: ActorSettings) throws -> LossAggregation {
        guard let mode = LossAggregation.Mode(rawValue: actor.lossAggregation.rawValue) else {
            throw WorkerError(.badSetting, "actor.loss_agg_mode: '\(actor.lossAggregation.rawValue)' is not known")
        }
        return LossAggregation(mode, scaleFactor: actor.lossScaleFactor)
    }

    private static func estimator(_ setting: Config.KLEstimator) throws -> PolicyAlgorithms.KLEstimator {
        guard let estimator = PolicyAlgorithms.KLEstimator(name: setting.word) else {
            throw WorkerError(.badSetting, "no KL estimator is called '\(setting.word)'")
        }
        return estimator
    }

    // MARK: - Reference

    /// Log-probabilities under the model as it was before training; with an adapter, as it is without.
    func referenceLogProbs(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        if let reference { return try reference.scoreShared(sequences).logProbs }
        guard plan.needsReference, let adapter = trainer.model.adapter else {
            throw WorkerError(.badSetting, "no reference model was loaded")
        }
        return try adapter.disabled { try trainer.scoreShared(sequences).logProbs }
    }

    // MARK: - Advantages

    /// Per-token advantages: the outcome score at the last token, less the KL penalty where it is part of the reward.
    func advantages(_ trajectories: [Trajectory]) throws -> [[Float]] {
        let padding = Padding(lengths: trajectories.map(\.response.count))
        var rewards = trajectories.map { trajectory in
            if let rewards = trajectory.tokenRewards { return rewards }
            var row = [Float](repeating: 0, count: trajectory.response.count)
            if !row.isEmpty { row[row.count - 1] = Float(trajectory.score ?? 0) }
            return row
        }
        if plan.algorithm.useKLInReward {
            let estimator = try Self.estimator(plan.algorithm.klPenalty)
            let coefficient = plan.algorithm.klControl.klCoefficient
            for (index, trajectory) in trajectories.enumerated() {
                guard let reference = trajectory.refLogProbs else { continue }
                let policy = trajectory.oldLogProbs ?? trajectory.rolloutLogProbs
                let kl = try estimator(Tensor(policy), Tensor(reference)).values(Float.self)
                for token in kl.indices where trajectory.responseMask?[token] ?? true {
                    rewards[index][token] -= Float(coefficient) * kl[token]
                }
            }
        }
        let result = try estimator(
            AdvantageInputs(
                tokenLevelRewards: padding.pad(rewards, device: .cpu),
                responseMask: padding.pad(trajectories.map(\.maskValues), device: .cpu),
                groups: trajectories.map(\.prompt.group)))
        return try padding.rows(result.advantages)
    }

    // MARK: - Update

    func update(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        let samples = trajectories.map {
            PolicySample(
                sequence: $0.sequence, oldLogProbs: $0.oldLogProbs, advantages: $0.advantages,
                rolloutLogProbs: $0.rolloutLogProbs, refLogProbs: $0.refLogProbs, responseMask: $0.responseMask,
                importanceWeights: $0.importanceWeights)
        }
        // Their numbers are read when all steps have been launched.
        var steps: [PendingPolicyStep] = []
        for epoch in 0..<plan.actor.ppoEpochs {
            for batch in miniBatches(trajectories, seed: seed &+ UInt64(epoch)) {
                steps.append(try trainer.enqueueShared(batch.map { samples[$0] }) { try objective($0) })
            }
        }
        return try Self.metrics(steps.map { try $0.report() }, samples: samples.count)
    }

    /// Indices by mini-batch: whole groups, `ppo_mini_batch_size` prompts each, shuffled where asked.
    private func miniBatches(_ trajectories: [Trajectory], seed: UInt64) -> [[Int]] {
        var groups: OrderedDictionary<Int, [Int]> = [:]
        for (index, trajectory) in trajectories.enumerated() {
            groups[trajectory.prompt.group, default: []].append(index)
        }
        var order = Array(groups.values)
        if plan.actor.shuffle {
            var generator = SplitMix64(seed: seed)
            order = generator.permutation(count: order.count).map { order[Int($0)] }
        }
        return stride(from: 0, to: order.count, by: plan.actor.ppoMiniBatchSize).map { start in
            order[start..<min(start + plan.actor.ppoMiniBatchSize, order.count)].flatMap { $0 }
        }
    }

    /// Means over the optimizer steps of one batch; maxima stay maxima.
    private static func metrics(_ reports: [PolicyStepReport], samples: Int) throws -> PhaseMetrics {
        var sums: OrderedDictionary<String, (total: Double, count: Int, greatest: Double)> = [:]
        for report in reports where report.microBatches > 0 {
            for (name, value) in report.metrics + [("actor/grad_norm", report.gradNorm)] {
                let old = sums[name] ?? (0, 0, -Double.infinity)
                sums[name] = (old.total + value, old.count + 1, max(old.greatest, value))
            }
        }
        var metrics: PhaseMetrics = [:]
        for (name, sum) in sums {
            let isMaximum = name.hasSuffix("_max")
            metrics[try MetricName(String(name))] = isMaximum ? sum.greatest : sum.total / Double(sum.count)
        }
        metrics["actor/lr"] = reports.last?.learningRate ?? 0
        metrics["actor/optimizer_steps"] = Double(reports.count { $0.stepped })
        // A gradient that was not finite leaves the weights alone: worth an alarm.
        metrics["actor/nonfinite_gradients"] = Double(reports.count { $0.microBatches > 0 && !$0.stepped })
        metrics["actor/micro_batches"] = Double(reports.reduce(0) { $0 + $1.microBatches })
        metrics["actor/computed_tokens"] = Double(reports.reduce(0) { $0 + $1.computedTokens })
        return metrics
    }
}
