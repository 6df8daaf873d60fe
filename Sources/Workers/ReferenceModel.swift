import Checkpoints
import Collectives
import Models
import TensorCore
import TrainingEngine

/// The policy as it was before training, with weights of its own.
struct ReferenceModel {
    private let trainer: PolicyTrainer
    let turns: RoleTurns

    /// Read anew, so that it never shares the weights that are trained.
    /// - Parameter rests: whether the weights lie in host memory while nobody asks.
    init(
        _ source: ModelSource, dtype: DType, device: Device, parallel: ParallelContext, mesh: DeviceMesh?,
        sharding: ShardingOptions, settings: PolicyTrainer.Settings, rests: Bool
    ) throws {
        let model = try ModelRegistry.load(source, dtype: dtype, device: device, parallel: parallel)
        trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: [], settings: .init()),
            schedule: LearningRateSchedule(peak: 0), settings: settings,
            parallel: try mesh.map { try DataParallel(model, trained: [], mesh: $0, sharding: sharding) })
        let held = trainer.parallel?.parameters.heldTensors ?? model.parameters.map(\.tensor)
        turns = try RoleTurns(weights: rests ? RestingTensors(held) : nil, device: device)
    }

    func logProbs(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        try turns.reading { try trainer.scoreShared(sequences).logProbs }
    }
}
