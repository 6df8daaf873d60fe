internal import Collectives
internal import TensorCore

/// Copies in host memory of what a rank writes, so that training goes on while it is written. The memory is kept for the next time.
final class ShardedSnapshot {
    private var buffers: [Tensor] = []
    private var used = 0
    /// The most of the model that is gathered on the device at a time.
    private static let gatherBytes = 512 << 20

    /// Begins anew, on the same memory.
    func reset() { used = 0 }

    /// Memory that no copy of this snapshot has.
    private func buffer(_ shape: [Int], _ dtype: DType, pinned: Bool) throws -> Tensor {
        if used < buffers.count, buffers[used].shape == shape, buffers[used].dtype == dtype {
            used += 1
            return buffers[used - 1]
        }
        buffers.removeSubrange(min(used, buffers.count)...)
        buffers.append(try Tensor.empty(shape, dtype: dtype, pinned: pinned))
        used += 1
        return buffers[used - 1]
    }

    /// Queues copies; on CUDA they are there after the device was waited for.
    func copy(_ tensors: [Tensor]) throws -> [Tensor] {
        try withNoGrad {
            try tensors.map { tensor in
                let host = try buffer(tensor.shape, tensor.dtype, pinned: tensor.device.isCUDA)
                try host.copy(from: tensor.detached(), nonBlocking: true)
                return host
            }
        }
    }

    /// The whole tensors of the files that this rank writes, from the pieces of all ranks. Every rank must call it.
    ///
    /// - Parameter reuse: what was planned for the same layout before.
    func gather(
        _ model: [LocalShard], _ parts: ShardedParts, _ gathering: ModelGathering, device: Device
    ) throws -> [String: Tensor] {
        var all: [String: Tensor] = [:]
        for batch in gathering.batches {
            let sources = batch.sources.map { model[$0] }
            if device.isCUDA {
                // By way of the device, a batch at a time: the group's tensors lie there.
                let targets = try batch.resharder.targets(for: sources, device: device)
                try batch.resharder.run(from: sources, into: targets)
                for (target, host) in zip(targets, try copy(targets.map(\.tensor))) { all[target.box.name] = host }
                try device.synchronize()
            } else {
                let targets = try batch.wanted.map {
                    LocalShard(box: $0.box, tensor: try buffer($0.box.sizes, $0.dtype, pinned: false))
                }
                try batch.resharder.run(from: sources, into: targets)
                for target in targets { all[target.box.name] = target.tensor }
            }
        }
        return all
    }

    /// How the model's files are gathered, a few tensors at a time; made once for a layout.
    struct ModelGathering {
        struct Batch {
            let resharder: Resharder
            /// Of what this rank holds, what the batch takes.
            let sources: [Int]
            let wanted: [ShardSpec]
        }
        let batches: [Batch]

        init(_ model: ShardLayout, _ parts: ShardedParts, _ group: ProcessGroup?) throws {
            let rank = group?.rank ?? 0, count = model.rankCount
            var groups: [[(spec: ShardSpec, writer: Int)]] = [[]], load = [Int](repeating: 0, count: count)
            // Round the files, so that every rank gathers in every batch.
            let queues = parts.modelFiles
            for place in 0..<(queues.map(\.tensors.count).max() ?? 0) {
                for file in queues where place < file.tensors.count {
                    let spec = file.tensors[place]
                    if load[file.writer] > 0, load[file.writer] + spec.byteCount > ShardedSnapshot.gatherBytes {
                        groups.append([])
                        load = Array(repeating: 0, count: count)
                    }
                    groups[groups.count - 1].append((spec, file.writer))
                    load[file.writer] += spec.byteCount
                }
            }
            var options = ReshardPlan.Options()
            options.gathers = false
            let byName = model.ranks.map { specs in Dictionary(grouping: specs.indices) { specs[$0].box.name } }
            batches = try groups.filter { !$0.isEmpty }.map { tensors in
                let sources = byName.map { byName in tensors.flatMap { byName[$0.spec.box.name] ?? [] } }
                let wanted = (0..<count).map { rank in tensors.filter { $0.writer == rank }.map(\.spec) }
                let plan = try ReshardPlan(
                    held: ShardLayout(
                        ranks: sources.enumerated().map { rank, indices in indices.map { model.ranks[rank][$0] } }),
                    wanted: ShardLayout(ranks: wanted), options: options)
                return Batch(resharder: Resharder(plan, group: group), sources: sources[rank], wanted: wanted[rank])
            }
        }
    }
}
