import Checkpoints
import Collectives
import Models
import TensorCore
import TrainingEngine

/// What several ranks wrote.
struct RankedTensors: SavedShards {
    let checkpoint: ShardedCheckpoint
    func contains(_ name: String) -> Bool { checkpoint.contains(name) }
    func fill(_ targets: [LocalShard]) throws { try checkpoint.fill(targets) }
}

/// The critic's among the tensors that several ranks wrote.
struct CriticTensors: SavedShards {
    static let prefix = "critic."
    let saved: RankedTensors

    func contains(_ name: String) -> Bool { saved.contains(Self.prefix + name) }
    func fill(_ targets: [LocalShard]) throws { try saved.fill(targets.map(Self.named)) }

    /// What a rank keeps of a critic: weights and the optimizer's states.
    static func shards(_ critic: ValueTrainer) throws -> [LocalShard] {
        guard let parallel = critic.parallel else { return [] }
        let weights = try parallel.parameters.all.filter { $0.trains && !$0.rows.isEmpty }
            .flatMap { try $0.localShards() }
        return (weights + (try critic.optimizer.shards())).map(named)
    }

    /// Puts a critic back as a checkpoint has it, whoever wrote that.
    /// - Throws: ``WorkerError`` with code `badCheckpoint` where it has none.
    static func restore(
        _ critic: ValueTrainer, _ saved: SavedState, _ checkpoint: CheckpointStore.Checkpoint
    ) throws {
        let steps = try saved.steps(of: critic.optimizer, checkpoint.folder)
        if let sharded = checkpoint.sharded {
            try critic.optimizer.restore(
                stepCount: steps, from: CriticTensors(saved: RankedTensors(checkpoint: sharded)))
        } else {
            try critic.optimizer.restore(
                stepCount: steps, from: WholeTensors(checkpoint.tensors, critic.model.parameters, prefix: prefix))
        }
    }

    /// A tensor of the critic under its name in a checkpoint.
    static func named(_ shard: LocalShard) -> LocalShard {
        LocalShard(
            box: ShardBox(name: prefix + shard.box.name, shape: shard.box.shape, ranges: shard.box.ranges),
            tensor: shard.tensor)
    }
}

/// What one process wrote, by its optimizer's names, as boxes of the checkpoint's tensors.
struct WholeTensors: SavedShards {
    private let saved: SafetensorsModel
    /// Of each of the model's tensors: the optimizer's tensor that it is a part of, and which of its rows.
    private let places: [String: (parameter: String, rows: Range<Int>)]

    /// What the names of this model's tensors begin with.
    private let prefix: String

    /// - Parameter parameters: of a model that has a part of every tensor at least.
    init(_ saved: SafetensorsModel, _ parameters: [Parameter], prefix: String = "") {
        self.saved = saved
        self.prefix = prefix
        var places: [String: (String, Range<Int>)] = [:]
        for parameter in parameters {
            var rows = 0
            for part in parameter.parts where places[part.name] == nil {
                places[part.name] = (parameter.name, rows..<rows + part.box.shape[0])
                rows += part.box.shape[0]
            }
        }
        self.places = places
    }

    /// `exp_avg.model.norm.weight` in two.
    private func place(_ name: String) -> (kind: String, parameter: String, rows: Range<Int>)? {
        for kind in ["master.", "exp_avg_sq.", "exp_avg.", "step."] where name.hasPrefix(kind) {
            if let place = places[String(name.dropFirst(kind.count))] { return (kind, place.parameter, place.rows) }
        }
        return nil
    }

    func contains(_ name: String) -> Bool { place(name) != nil }

    func fill(_ targets: [LocalShard]) throws {
        for target in targets {
            guard let place = place(target.box.name) else {
                throw CheckpointError(.missingTensor, saved.folder, "there is no tensor '\(target.box.name)'")
            }
            var tensor = try whole(place.kind, place.parameter)
            if place.kind == "step." {
                tensor = try tensor.reshaped([1])
            } else {
                tensor = try tensor.narrowed(0, place.rows)
                for (dim, range) in target.box.ranges.enumerated() { tensor = try tensor.narrowed(dim, range) }
            }
            try withNoGrad { try target.tensor.copy(from: tensor) }
        }
    }

    private func whole(_ kind: String, _ parameter: String) throws -> Tensor {
        let tensor = try saved.tensor(named: prefix + kind + parameter)
        guard tensor.dtype == .uint8 else { return tensor }
        let scales = try saved.tensor(named: prefix + kind.dropLast() + "_scale." + parameter)
        return try tensor.decodedMoments(scales: scales, isSigned: kind == "exp_avg.").reshaped(tensor.shape)
    }
}
