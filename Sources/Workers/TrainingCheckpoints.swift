import Checkpoints
import Flow
import Foundation
import Models
import TensorCore
import TrainingEngine

/// The checkpoints of a run, whatever it trains: the optimizer's tensors, and beside them how far the run is.
struct TrainingCheckpoints {
    /// A checkpoint that a run can go on from.
    struct Found {
        let state: SavedState
        let checkpoint: CheckpointStore.Checkpoint
    }

    /// nil for a run that keeps none.
    let store: CheckpointStore?
    let optimizer: AdamW
    let model: any SequenceModel
    let source: ModelSource
    /// The optimizer of a critic, where one is trained too.
    var critic: AdamW?

    func save(step: Int, state: LoopState, weightVersion: Int) throws {
        guard let store else { return }
        try optimizer.settle()
        try critic?.settle()
        var envelope = SavedState(
            loop: state, optimizerSteps: optimizer.stepCount, weightVersion: weightVersion, modelDigest: source.digest,
            adapter: model.adapter?.settings)
        envelope.criticSteps = critic?.stepCount
        let ofCritic = try critic?.state().map { (name: CriticTensors.prefix + $0.name, tensor: $0.tensor) } ?? []
        try store.save(
            step: step, tensors: try optimizer.state() + ofCritic, state: Array(JSONEncoder().encode(envelope)))
    }

    /// The folder of the checkpoint to go on from, `path` or that of the newest whole one of the run's own, and what was passed over
    /// because it is damaged.
    func folder(at path: String?) throws -> (folder: String?, skipped: [String]) {
        if let path { return (path, []) }
        guard let store else { return (nil, []) }
        let latest = try store.latest()
        return (latest.checkpoint?.folder, latest.skipped.map(\.description))
    }

    /// The checkpoint in ``folder(at:)``.
    /// - Throws: ``WorkerError`` with code `badCheckpoint` for one of another model or adapter.
    func find(at path: String?) throws -> (found: Found?, skipped: [String]) {
        let (folder, skipped) = try folder(at: path)
        guard let folder else { return (nil, skipped) }
        let checkpoint = try CheckpointStore.checkpoint(at: folder)
        let saved = try SavedState(checkpoint, of: source, adapter: model.adapter)
        return (Found(state: saved, checkpoint: checkpoint), skipped)
    }

    /// Puts weights, moments and the count of steps back.
    func restore(_ found: Found) throws {
        let criticSteps = try found.state.steps(of: critic, found.checkpoint.folder)
        if let sharded = found.checkpoint.sharded {
            let tensors = RankedTensors(checkpoint: sharded)
            try optimizer.restore(stepCount: found.state.optimizerSteps, from: tensors)
            try critic?.restore(stepCount: criticSteps, from: CriticTensors(saved: tensors))
            return
        }
        let tensors = found.checkpoint.tensors
        try optimizer.restore(stepCount: found.state.optimizerSteps) { try tensors.tensor(named: $0) }
        try critic?.restore(stepCount: criticSteps) { try tensors.tensor(named: CriticTensors.prefix + $0) }
    }

    /// Goes on from the checkpoint in ``folder(at:)``.
    /// - Returns: what it says, and what was passed over because it is damaged.
    func restore(from path: String?) throws -> (state: SavedState?, skipped: [String]) {
        let (found, skipped) = try find(at: path)
        if let found { try restore(found) }
        return (found?.state, skipped)
    }

    /// Replaces a model's weights by those of the newest whole checkpoint of a folder, for a worker that does not train.
    static func loadWeights(from folder: String, into model: any SequenceModel) throws {
        guard let checkpoint = try CheckpointStore(reading: folder).latest().checkpoint else {
            throw WorkerError(.badCheckpoint, "\(folder) holds no whole checkpoint")
        }
        let saved = try JSONDecoder().decode(SavedState.self, from: Data(checkpoint.state))
        // An adapter that the run trained is made as the run made it, whatever this worker's recipe says.
        if model.adapter == nil, let settings = saved.adapter { try model.addAdapter(settings) }
        try saved.check(adapter: model.adapter, checkpoint.folder)
        if let sharded = checkpoint.sharded {
            // Under the checkpoint's names: a model of one process reads what any number of ranks wrote.
            try sharded.fill(model.trainableParameters.flatMap { try $0.shards() })
            return
        }
        try withNoGrad {
            for parameter in model.trainableParameters {
                try parameter.tensor.copy(from: checkpoint.tensors.tensor(named: AdamW.masterName(parameter)))
            }
        }
    }
}

/// What a checkpoint says beside its tensors.
struct SavedState: Codable {
    var loop: LoopState
    var optimizerSteps: Int
    var weightVersion: Int
    var modelDigest: String
    /// Of the adapter that is trained in place of the weights.
    var adapter: LoRASettings?
    /// The critic's optimizer steps; nil where none was trained.
    var criticSteps: Int?
}

extension SavedState {
    /// The steps of a critic to go on with; 0 without one.
    /// - Throws: ``WorkerError`` with code `badCheckpoint` where the checkpoint has none.
    func steps(of critic: AdamW?, _ folder: String) throws(WorkerError) -> Int {
        guard critic != nil else { return 0 }
        guard let criticSteps else {
            throw WorkerError(
                .badCheckpoint,
                "\(folder): was written without a critic; give the run another folder (trainer.default_local_dir) or set "
                    + "trainer.resume_mode=disable")
        }
        return criticSteps
    }

    /// - Throws: ``WorkerError`` with code `badCheckpoint` for a checkpoint of another model or adapter.
    init(_ found: CheckpointStore.Checkpoint, of source: ModelSource, adapter: LoRA?) throws {
        self = try JSONDecoder().decode(SavedState.self, from: Data(found.state))
        guard modelDigest == source.digest else {
            throw WorkerError(
                .badCheckpoint,
                "\(found.folder): was written for another model than \(source.path); give the run another folder "
                    + "(trainer.default_local_dir) or set trainer.resume_mode=disable")
        }
        try check(adapter: adapter, found.folder)
    }
}
