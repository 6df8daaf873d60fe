import Checkpoints
import Collectives
import Flow
import Foundation
import Models
import TensorCore
import TrainingEngine

/// The checkpoints of a run of several ranks: each writes its part while training goes on, and reads what it needs of what any number of
/// ranks, or one process, wrote in any layout. Every rank makes the same calls.
struct RankedCheckpoints {
    /// nil for a run that keeps none.
    let store: ShardedCheckpointStore?
    private let trainer: PolicyTrainer
    private let parameters: ShardedParameters
    private let models: RankModels
    private let source: ModelSource
    private let isFirst: Bool
    /// Those who write a checkpoint together; nil for one.
    private let group: ProcessGroup?
    private let critic: ValueTrainer?

    init(
        folder: String?, keepLast: Int?, trainer: PolicyTrainer, parallel: DataParallel, models: RankModels,
        source: ModelSource, critic: Critic? = nil, savers: ProcessGroup?
    ) throws {
        self.critic = if case .own(let parts)? = critic { parts.trainer } else { nil }
        self.trainer = trainer
        self.models = models
        self.source = source
        parameters = parallel.parameters
        let mesh = parameters.mesh
        isFirst = mesh.rank == 0
        group = savers
        store = try folder.map {
            try ShardedCheckpointStore(folder: $0, keepLast: keepLast ?? Int.max, group: savers, device: mesh.device)
        }
    }

    /// - Parameters:
    ///   - state: of the loop, which the first rank alone knows.
    ///   - criticSteps: those of a critic elsewhere.
    func save(step: Int, state: LoopState?, weightVersion: Int, criticSteps: Int? = nil) throws {
        guard let store else { return }
        let model = trainer.model, optimizer = trainer.optimizer
        // An adapter's run saves that alone.
        let trained = parameters.all.filter { $0.trains && !$0.rows.isEmpty }
        var contents = ShardedCheckpointStore.Contents(
            step: step, mesh: parameters.mesh.shape, model: try trained.flatMap { try $0.localShards() },
            modelDType: model.trainableParameters.first?.tensor.dtype ?? model.dtype)
        contents.states = try optimizer.shards()
        if let critic { contents.states += try CriticTensors.shards(critic) }
        if model.adapter == nil { contents.config = source.config }
        if isFirst, let state {
            var saved = SavedState(
                loop: state, optimizerSteps: optimizer.stepCount, weightVersion: weightVersion,
                modelDigest: source.digest, adapter: model.adapter?.settings)
            saved.criticSteps = criticSteps ?? critic?.optimizer.stepCount
            contents.state = try Array(JSONEncoder().encode(saved))
            if model.adapter == nil { contents.companions = try ModelExport.companions(of: source) }
        }
        try store.save(contents)
    }

    /// Waits until the checkpoint under way is whole.
    func settle() throws { try store?.settle() }

    func removeAll() throws { try store?.removeAll() }

    /// Goes on from the checkpoint at `path`, or from the newest whole one of the run's own folder.
    /// - Returns: what it says, and what was passed over because it is damaged.
    /// - Throws: ``WorkerError`` with code `badCheckpoint` for one of another model or adapter.
    func restore(from path: String?) throws -> (state: SavedState?, skipped: [String]) {
        let mesh = parameters.mesh
        var checkpoint: CheckpointStore.Checkpoint?, skipped: [String] = []
        if let path {
            checkpoint = try ShardedCheckpointStore.checkpoint(
                at: path, group: group, device: mesh.device)
        } else if let store {
            let latest = try store.latest()
            checkpoint = latest.checkpoint
            skipped = latest.skipped.map(\.description)
        }
        guard let checkpoint else { return (nil, skipped) }
        let saved = try SavedState(checkpoint, of: source, adapter: trainer.model.adapter)
        _ = try saved.steps(of: critic?.optimizer, checkpoint.folder)
        if let sharded = checkpoint.sharded {
            let tensors = RankedTensors(checkpoint: sharded)
            try trainer.optimizer.restore(stepCount: saved.optimizerSteps, from: tensors)
        } else {
            // Whoever samples elsewhere has them all; this rank's experts alone do not say where they lie among the others.
            guard mesh.shape[.expert] == 1 || models.copy != nil else {
                throw WorkerError(
                    .badCheckpoint,
                    "\(checkpoint.folder): was written by one process, which ranks that share experts and sample on another pool do not "
                        + "read; go on from it for a step with roles.rollout on the actor's pool")
            }
            // Of a model with parts of all tensors: other ranks may have the layers or experts beside which this one's lay.
            let whole = models.sampled.parameters + (trainer.model.adapter?.parameters ?? [])
            try trainer.optimizer.restore(
                stepCount: saved.optimizerSteps, from: WholeTensors(checkpoint.tensors, whole))
        }
        if let critic { try CriticTensors.restore(critic, saved, checkpoint) }
        return (saved, skipped)
    }
}
