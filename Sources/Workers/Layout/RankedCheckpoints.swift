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
    /// What is trained, and where it came from.
    struct Trained {
        var model: any SequenceModel
        var optimizer: AdamW
        var parameters: ShardedParameters
        var source: ModelSource
        /// The model's as it is now, for the folder that a checkpoint is; nil for the source's.
        var config: ModelConfig?
        /// A model that has a part of every tensor at least, by which what one process wrote is read: another rank may have the layers or
        /// experts beside which this one's lay. nil where there is none.
        var whole: (any SequenceModel)?
    }

    /// nil for a run that keeps none.
    let store: ShardedCheckpointStore?
    private let trained: Trained
    private let isFirst: Bool
    /// Those who write a checkpoint together; nil for one.
    private let group: ProcessGroup?
    private let critic: ValueTrainer?

    init(
        folder: String?, keepLast: Int?, _ trained: Trained, critic: Critic? = nil, savers: ProcessGroup?
    ) throws {
        self.critic = if case .own(let parts)? = critic { parts.trainer } else { nil }
        self.trained = trained
        let mesh = trained.parameters.mesh
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
        let model = trained.model, optimizer = trained.optimizer, source = trained.source
        // An adapter's run saves that alone.
        let learnt = trained.parameters.all.filter { $0.trains && !$0.rows.isEmpty }
        var contents = ShardedCheckpointStore.Contents(
            step: step, mesh: trained.parameters.mesh.shape, model: try learnt.flatMap { try $0.localShards() },
            modelDType: model.trainableParameters.first?.tensor.dtype ?? model.dtype)
        contents.states = try optimizer.shards()
        if let critic { contents.states += try CriticTensors.shards(critic) }
        if model.adapter == nil { contents.config = trained.config ?? source.config }
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

    /// The checkpoint at `path`, or the newest whole one of the run's own folder; nothing is changed yet.
    /// - Returns: what it says, and what was passed over because it is damaged.
    /// - Throws: ``WorkerError`` with code `badCheckpoint` for one of another model or adapter.
    func find(at path: String?) throws -> (found: TrainingCheckpoints.Found?, skipped: [String]) {
        var checkpoint: CheckpointStore.Checkpoint?, skipped: [String] = []
        if let path {
            checkpoint = try ShardedCheckpointStore.checkpoint(
                at: path, group: group, device: trained.parameters.mesh.device)
        } else if let store {
            let latest = try store.latest()
            checkpoint = latest.checkpoint
            skipped = latest.skipped.map(\.description)
        }
        guard let checkpoint else { return (nil, skipped) }
        let saved = try SavedState(checkpoint, of: trained.source, adapter: trained.model.adapter)
        _ = try saved.steps(of: critic?.optimizer, checkpoint.folder)
        return (TrainingCheckpoints.Found(state: saved, checkpoint: checkpoint), skipped)
    }

    /// Puts weights, moments and the count of steps back.
    func restore(_ found: TrainingCheckpoints.Found) throws {
        let checkpoint = found.checkpoint, saved = found.state, optimizer = trained.optimizer
        if let sharded = checkpoint.sharded {
            let tensors = RankedTensors(checkpoint: sharded)
            try optimizer.restore(stepCount: saved.optimizerSteps, from: tensors)
        } else {
            guard let whole = trained.whole else {
                throw WorkerError(
                    .badCheckpoint,
                    "\(checkpoint.folder): was written by one process, which ranks that share experts read only where they sample from a "
                        + "model of their own; go on from it for a step in a layout without expert_model_parallel_size")
            }
            let parameters = whole.parameters + (trained.model.adapter?.parameters ?? [])
            try optimizer.restore(
                stepCount: saved.optimizerSteps, from: WholeTensors(checkpoint.tensors, parameters))
        }
        if let critic { try CriticTensors.restore(critic, saved, checkpoint) }
    }

    /// Goes on from the checkpoint that ``find(at:)`` finds.
    func restore(from path: String?) throws -> (state: SavedState?, skipped: [String]) {
        let (found, skipped) = try find(at: path)
        if let found { try restore(found) }
        return (found?.state, skipped)
    }
}

extension RankModels {
    /// The model by which ranks read what one process wrote: whoever samples elsewhere has every tensor; experts that are shared out do
    /// not say where they lie among the others.
    var whole: (any SequenceModel)? { mesh?.shape[.expert] ?? 1 == 1 || copy != nil ? sampled : nil }
}
