public import Collectives
import TensorCore

/// Tensors of a checkpoint by the names of its model's tensors, to be read in any layout.
public protocol SavedShards {
    func contains(_ name: String) -> Bool
    /// Fills tensors with their boxes of the tensors of their names, converted to their types.
    func fill(_ targets: [LocalShard]) throws
}

extension AdamW {
    private static let kinds = (master: "master.", moments: ["exp_avg.", "exp_avg_sq."], step: "step.")

    /// The states that a resumed run needs beside the weights, each under the name of the checkpoint's tensor that it is for with its
    /// kind before it. 8-bit moments are float32 here: their blocks are those of this layout.
    public func shards() throws -> [LocalShard] {
        try settle()
        let (masters, moments) = try currentStates()
        // States in host memory are written by copies that may be on their way.
        if device.isCUDA { try device.synchronize() }
        var all: [LocalShard] = []
        for (slot, parameter) in parameters.enumerated() {
            if let master = masters[slot] { all += try named(Self.kinds.master, parameter, master) }
            for (kind, moment) in zip(Self.kinds.moments, [moments.first[slot], moments.second[slot]]) {
                all += try named(kind, parameter, moment.plain())
            }
            all += try steps(slot, moments)
        }
        return all
    }

    /// Puts back the weights and what ``shards()`` gave, in whatever layout and types they were saved.
    public func restore(stepCount: Int, from saved: some SavedShards) throws {
        try settle()
        try stream?.drop()
        try changing { try refill(from: saved) }
        self.stepCount = stepCount
    }

    private func refill(from saved: some SavedShards) throws {
        let moments = try awakeMoments()
        if device.isCUDA { try device.synchronize() }
        var targets: [LocalShard] = [], coded: [(moment: Moment, plain: Tensor)] = []
        try withNoGrad {
            for (slot, parameter) in parameters.enumerated() {
                let weight = try parameter.weight.detached()
                for shard in try named("", parameter, masters[slot] ?? weight) {
                    let master = Self.kinds.master + shard.box.name
                    targets.append(saved.contains(master) ? shard.renamed(master) : shard)
                }
                for (kind, moment) in zip(Self.kinds.moments, [moments.first[slot], moments.second[slot]]) {
                    if moment.scales == nil {
                        targets += try named(kind, parameter, moment.values)
                    } else {
                        let plain = try Tensor.zeros(moment.values.shape)
                        coded.append((moment, plain))
                        targets += try named(kind, parameter, plain)
                    }
                }
                targets += try steps(slot, moments).prefix(1)
            }
            // What lies on the device and what waits in the host's memory come by different ways.
            for place in Set(targets.map(\.tensor.device)) {
                try saved.fill(targets.filter { $0.tensor.device == place })
            }
            for (moment, plain) in coded { try moment.restore(plain) { plain } }
            for (slot, parameter) in parameters.enumerated() {
                if let master = masters[slot] { try parameter.weight.detached().copy(from: master) }
            }
        }
    }

    /// How often a parameter was stepped, for each of the checkpoint's tensors that it holds.
    private func steps(_ slot: Int, _ moments: Moments) throws -> [LocalShard] {
        let count = try moments.progress.steps.narrowed(0, slot..<slot + 1)
        var names: [String] = []
        for shard in try named(Self.kinds.step, parameters[slot], parameters[slot].weight.detached())
        where !names.contains(shard.box.name) { names.append(shard.box.name) }
        return names.map { LocalShard(box: ShardBox(whole: $0, shape: [1]), tensor: count) }
    }

    private func named(_ kind: String, _ parameter: OptimizerParameter, _ tensor: Tensor) throws -> [LocalShard] {
        guard let shards = parameter.shards else {
            preconditionFailure("'\(parameter.name)' is of no checkpoint")
        }
        return try shards(tensor).map { $0.renamed(kind + $0.box.name) }
    }
}

extension LocalShard {
    fileprivate func renamed(_ name: String) -> LocalShard {
        LocalShard(box: ShardBox(name: name, shape: box.shape, ranges: box.ranges), tensor: tensor)
    }
}
