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
    public var critic: CriticSettings
    /// The name of the loss, and whether the sampler's log-probabilities stand for the old policy's in it.
    public var policyLoss: String
    public var bypassesOldLogProbs: Bool
    public var hasCritic: Bool
    /// The parts of a weighted reward.
    public var rewardWeights: OrderedDictionary<String, Double>
    public var maxResponseLength: Int
    public var optimizer, criticOptimizer: AdamW.Settings
    /// Optimizer steps of the whole run, for the learning rates' schedules.
    public var optimizerSteps, criticSteps: Int
    public var needsReference: Bool
    /// Whose memory serves the other roles but for its turn.
    public var rests = RestingRoles()
    /// Bytes that the sampler's cache may have to stay while the policy learns; nil: it sleeps.
    public var cacheLimit: Int?
    /// Whether these were chosen by what this rank's device has room for.
    public var restsByForecast = false
    public var checkpointFolder: String?
    public var checkpointsKept: Int?
}

extension TrainingPlan {
    /// What each rank has chosen.
    private struct Turns: Codable {
        var rests: RestingRoles
        var cacheLimit: Int?
    }

    /// With what ranks chose by their devices' memory chosen alike: what rests on any rests on all, and a sampler stays awake where all
    /// have room. They all call it.
    func agreed(over mesh: DeviceMesh?) throws -> TrainingPlan {
        guard restsByForecast else { return self }
        guard let mesh, let group = try mesh.group(MeshAxis.all) else { return self }
        let all = try group.exchange(Turns(rests: rests, cacheLimit: cacheLimit), device: mesh.device)
        var plan = self
        plan.rests = RestingRoles(
            reference: all.contains(where: \.rests.reference), critic: all.contains(where: \.rests.critic),
            states: all.contains(where: \.rests.states))
        let limits = all.compactMap(\.cacheLimit)
        plan.cacheLimit = limits.count == all.count ? limits.min() : nil
        return plan
    }
}

/// The trainer of a policy worker with everything it needs; lives on the worker's thread.
struct TrainingParts {
    let plan: TrainingPlan
    let trainer: PolicyTrainer
    let objective: PolicyObjective
    let estimation: BatchEstimation
    /// nil without one.
    let critic: Critic?
    /// The model as it was before training; nil where it is not needed, or lies below an adapter.
    private let reference: ReferenceModel?
    /// The optimizer's states, where they rest but for updates.
    private let turns: RoleTurns
    /// Of a run of one process, if it keeps any.
    let store: CheckpointStore?
    /// Of a run of several ranks.
    let ranked: RankedCheckpoints?

    init(
        _ plan: TrainingPlan, models: RankModels, source: ModelSource,
        sharding: ShardingOptions = ShardingOptions(mode: .noShard), members: PoolMembers? = nil
    ) throws {
        let model = models.trained, mesh = models.mesh
        let plan = try plan.agreed(over: mesh)
        self.plan = plan
        if model.adapter == nil { try source.requireTrainableWeights() }
        try TrainingShares(plan.actor).checkTied(model, plan.optimizer)
        let optim = plan.actor.optim
        objective = try PolicyObjective(plan)
        estimation = try BatchEstimation(
            plan.algorithm, rewardWeights: plan.rewardWeights, bypassesOldLogProbs: plan.bypassesOldLogProbs)
        let head = try Self.valueHead(plan, model, mesh)
        let settings = PolicyTrainer.Settings(plan, objective)
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
                settings: settings, valueHead: head)
        }
        // Before other models are read, which may need the room.
        turns = try RoleTurns(optimizer: plan.rests.states ? trainer.optimizer : nil, device: model.device)
        critic =
            if let head { .shared(head) } else if plan.hasCritic {
                .own(
                    try CriticParts(
                        plan, source: source,
                        .init(
                            dtype: model.dtype, device: model.device, parallel: model.parallel, mesh: mesh,
                            sharding: sharding, checkpointing: model.checkpointing, vocabulary: model.shape.vocabulary)
                    ))
            } else { nil }
        // Below an adapter the weights are never trained, and are the reference themselves.
        if plan.needsReference, model.adapter == nil {
            reference = try ReferenceModel(
                source, dtype: model.dtype, device: model.device, parallel: model.parallel, mesh: mesh,
                sharding: sharding, settings: settings, rests: plan.rests.reference)
        } else {
            reference = nil
        }
        if let parallel = trainer.parallel {
            store = nil
            ranked = try RankedCheckpoints(
                folder: plan.checkpointFolder, keepLast: plan.checkpointsKept,
                .init(
                    model: model, optimizer: trainer.optimizer, parameters: parallel.parameters, source: source,
                    whole: models.whole), critic: critic,
                savers: try members?.savers(parallel.parameters.mesh) ?? parallel.parameters.mesh.group(MeshAxis.all))
        } else {
            ranked = nil
            store = try plan.checkpointFolder.map {
                try CheckpointStore(folder: $0, keepLast: plan.checkpointsKept ?? Int.max)
            }
        }
    }

    /// The head of a critic that shares the policy's trunk.
    private static func valueHead(
        _ plan: TrainingPlan, _ model: any CausalLanguageModel, _ mesh: DeviceMesh?
    ) throws -> TrainedValueHead? {
        guard plan.hasCritic, plan.critic.sharesTrunk else { return nil }
        guard mesh == nil else {
            throw WorkerError(
                .badSetting,
                "critic.shares_trunk: a head on the policy's trunk is trained on one device only; remove it, or make "
                    + "trainer.n_gpus_per_node 1")
        }
        let head = try ValueHead(hidden: model.shape.hidden, device: model.device)
        return TrainedValueHead(
            head, optimizer: try AdamW(parameters: head.parameters, settings: plan.criticOptimizer),
            schedule: LearningRateSchedule(plan.critic.optim, steps: plan.optimizerSteps))
    }

    // MARK: - Reference

    /// Log-probabilities under the model as it was before training; with an adapter, as it is without.
    func referenceLogProbs(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        if let reference { return try reference.logProbs(sequences) }
        guard plan.needsReference, let adapter = trainer.model.adapter else {
            throw WorkerError(.badSetting, "no reference model was loaded")
        }
        return try adapter.disabled { try trainer.scoreShared(sequences).logProbs }
    }

    // MARK: - Critic

    private func whole() throws -> Critic {
        guard let critic else { throw WorkerError(.badSetting, "no critic was made") }
        return critic
    }

    func values(_ trajectories: [Trajectory]) throws -> [[Float]] {
        switch try whole() {
        case .own(let parts): try parts.values(trajectories)
        case .shared: try trainer.headValues(trajectories.map(\.sequence))
        }
    }

    func updateCritic(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        switch try whole() {
        case .own(let parts): try parts.update(trajectories, seed: seed)
        // It learns with the policy.
        case .shared: [:]
        }
    }

    /// Runs `body`, which saves or restores a checkpoint, with a critic's weights on the device.
    func checkpointing<Result>(restores: Bool, _ body: () throws -> Result) throws -> Result {
        guard case .own(let parts)? = critic else { return try body() }
        return try restores ? parts.turns.restoring(body) : parts.turns.reading(body)
    }

    /// What takes turns with the device's memory, a sentence; nil: everything stays.
    var turnNote: String? {
        var all = [turns, reference?.turns].compactMap { $0 }
        if case .own(let parts)? = critic { all.append(parts.turns) }
        return plan.rests.note(bytes: all.reduce(0) { $0 + $1.byteCount })
    }

    // MARK: - Update

    func update(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        let samples = trajectories.map {
            PolicySample(
                sequence: $0.sequence, oldLogProbs: $0.oldLogProbs, advantages: $0.advantages,
                rolloutLogProbs: $0.rolloutLogProbs, refLogProbs: $0.refLogProbs, responseMask: $0.responseMask,
                importanceWeights: $0.importanceWeights, values: $0.values, returns: $0.returns)
        }
        var metrics = try turns.learning { try step(samples, trajectories, seed: seed) }
        let others = [turns, reference?.turns].compactMap { $0 }.filter(\.takes)
        if !others.isEmpty {
            let traffic = others.reduce(RestingTraffic()) { $0 + $1.taken() }
            metrics["perf/rested_bytes"] = Double(traffic.bytes)
            metrics["perf/rested_seconds"] = traffic.seconds
        }
        return metrics
    }

    private func step(
        _ samples: [PolicySample], _ trajectories: [Trajectory], seed: UInt64
    ) throws -> PhaseMetrics {
        // Their numbers are read when all steps have been launched.
        var steps: [PendingPolicyStep] = []
        for epoch in 0..<plan.actor.ppoEpochs {
            let order = plan.actor.shuffle ? seed &+ UInt64(epoch) : nil
            for batch in MiniBatches.split(
                trajectories, prompts: plan.actor.ppoMiniBatchSize, shuffledBy: order)
            {
                let batch = batch.map { samples[$0] }, objective = try objective.fitted(to: batch)
                steps.append(try trainer.enqueueShared(batch) { try objective($0) })
            }
        }
        return try StepReports.metrics(steps.map { try $0.report() }, group: "actor")
    }
}

extension PolicyTrainer.Settings {
    init(_ plan: TrainingPlan, _ objective: PolicyObjective) {
        let actor = plan.actor
        self.init(
            microBatchTokens: actor.ppoMaxTokenLenPerGPU, gradClip: actor.gradClip ?? 0,
            temperature: plan.rollout.temperature > 0 ? plan.rollout.temperature : 1, sharesPrefixes: actor.sharePrefix,
            skipsZeroAdvantages: objective.vanishesWithoutAdvantage && actor.routerAuxLossCoefficient == 0,
            routerAuxLossCoefficient: actor.routerAuxLossCoefficient,
            microBatchSequences: actor.useDynamicBatchSize ? nil : actor.ppoMicroBatchSizePerGPU)
    }
}

extension PolicyObjective {
    init(_ plan: TrainingPlan) throws {
        let actor = plan.actor
        guard let makeLoss = PolicyLosses.all[plan.policyLoss] else {
            throw WorkerError(.badSetting, "actor.policy_loss: no loss is called '\(plan.policyLoss)'")
        }
        self.init(
            policyLoss: makeLoss(try PolicyLossSettings(actor, plan.algorithm.rolloutCorrection)),
            aggregation: try LossAggregation(
                actor.lossAggregation, scaleFactor: actor.lossScaleFactor, width: plan.maxResponseLength),
            entropyCoefficient: actor.entropyCoefficient,
            kl: actor.useKLLoss ? (try .init(actor.klLossType), actor.klLossCoefficient) : nil,
            bypassesOldLogProbs: plan.bypassesOldLogProbs,
            value: plan.hasCritic && plan.critic.sharesTrunk
                ? (try ValueObjective(plan), plan.critic.valueLossCoefficient) : nil)
    }
}
