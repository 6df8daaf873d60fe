import Checkpoints
import Collectives
import Config
import Flow
import Models
import OrderedCollections
import PolicyAlgorithms
import Telemetry
import TensorCore
import TrainingEngine

/// The critic of a policy worker: a model of its own, or a head on the policy's last layer. Lives on the worker's thread.
enum Critic {
    case own(CriticParts)
    /// Learns in the policy's passes.
    case shared(TrainedValueHead)

    var optimizer: AdamW {
        switch self {
        case .own(let parts): parts.trainer.optimizer
        case .shared(let head): head.optimizer
        }
    }
}

/// A critic with a model of its own.
struct CriticParts {
    let plan: TrainingPlan
    let trainer: ValueTrainer
    private let objective: ValueObjective
    /// The weights and the optimizer's states, where they rest between two uses.
    let turns: RoleTurns

    /// Where and how it computes.
    struct Place {
        var dtype: DType
        var device: Device
        var parallel: ParallelContext
        /// The ranks that train it together; nil for one alone.
        var mesh: DeviceMesh?
        var sharding: ShardingOptions
        var checkpointing: ActivationCheckpointing
        /// Tokens that the policy draws from.
        var vocabulary: Int
    }

    /// - Parameter source: of the policy's model, which the critic's is too unless another is named.
    init(_ plan: TrainingPlan, source: ModelSource, _ place: Place) throws {
        self.plan = plan
        let settings = plan.critic
        let source = try settings.modelPath.map { try ModelSource.open($0) } ?? source
        try source.requireTrainableWeights()
        let model = try ModelRegistry.loadScoring(
            source, dtype: place.dtype, device: place.device, newHead: ScoringModel.NewHead(),
            parallel: place.parallel)
        guard model.shape.vocabulary >= place.vocabulary else {
            throw WorkerError(
                .badSetting,
                "critic.model.path: \(source.path) knows \(model.shape.vocabulary) tokens and the policy draws from "
                    + "\(place.vocabulary); take a model of the same tokenizer")
        }
        model.checkpointing = place.checkpointing
        let trainerSettings = ValueTrainer.Settings(
            microBatchTokens: settings.ppoMaxTokenLenPerGPU ?? plan.actor.ppoMaxTokenLenPerGPU,
            gradClip: settings.gradClip ?? 0, sharesPrefixes: plan.actor.sharePrefix)
        let schedule = LearningRateSchedule(settings.optim, steps: plan.criticSteps)
        if let mesh = place.mesh {
            var sharding = place.sharding
            sharding.gradDType = plan.criticOptimizer.gradDType
            let parallel = try DataParallel(
                model, trained: model.trainableParameters, mesh: mesh, sharding: sharding, axes: { GradientAxes($0) })
            trainer = try ValueTrainer(
                model: model, optimizer: try parallel.optimizer(plan.criticOptimizer), schedule: schedule,
                settings: trainerSettings, parallel: parallel)
        } else {
            trainer = try ValueTrainer(
                model: model,
                optimizer: try AdamW(parameters: model.trainableParameters, settings: plan.criticOptimizer),
                schedule: schedule, settings: trainerSettings)
        }
        objective = try ValueObjective(plan)
        let held = trainer.parallel?.parameters.heldTensors ?? model.parameters.map(\.tensor)
        turns = try RoleTurns(
            weights: plan.rests.critic ? RestingTensors(held) : nil,
            optimizer: plan.rests.critic ? trainer.optimizer : nil, device: place.device)
    }

    func values(_ trajectories: [Trajectory]) throws -> [[Float]] {
        try turns.reading { try trainer.valuesShared(trajectories.map(\.sequence)) }
    }

    func update(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        let samples = try trajectories.map { trajectory in
            guard let values = trajectory.values, let returns = trajectory.returns else {
                throw WorkerError(.badSetting, "the critic was asked to learn without values or returns")
            }
            return ValueSample(
                sequence: trajectory.sequence, values: values, returns: returns, responseMask: trajectory.responseMask)
        }
        var metrics = try turns.learning { try step(samples, trajectories, seed: seed) }
        if turns.takes {
            let traffic = turns.taken()
            metrics["perf/critic_rested_bytes"] = Double(traffic.bytes)
            metrics["perf/critic_rested_seconds"] = traffic.seconds
        }
        return metrics
    }

    private func step(
        _ samples: [ValueSample], _ trajectories: [Trajectory], seed: UInt64
    ) throws -> PhaseMetrics {
        let settings = plan.critic, size = settings.ppoMiniBatchSize ?? plan.actor.ppoMiniBatchSize
        // Their numbers are read when all steps have been launched.
        var steps: [PendingPolicyStep] = []
        for epoch in 0..<(settings.ppoEpochs ?? plan.actor.ppoEpochs) {
            let order = (settings.shuffle ?? plan.actor.shuffle) ? seed &+ UInt64(epoch) : nil
            for batch in MiniBatches.split(trajectories, prompts: size, shuffledBy: order) {
                steps.append(try trainer.enqueueShared(batch.map { samples[$0] }) { try objective($0) })
            }
        }
        return try StepReports.metrics(steps.map { try $0.report() }, group: "critic")
    }
}

extension ValueObjective {
    init(_ plan: TrainingPlan) throws {
        self.init(
            loss: ValueLoss(clipRange: plan.critic.clipRangeValue),
            aggregation: try LossAggregation(
                plan.critic.lossAggregation, scaleFactor: nil, width: plan.maxResponseLength))
    }
}
