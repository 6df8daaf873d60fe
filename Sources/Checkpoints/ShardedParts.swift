internal import Collectives
internal import OrderedCollections
internal import TensorCore

/// Which rank writes which file of a sharded checkpoint; the same on every rank.
struct ShardedParts {
    /// A file of whole tensors of the model.
    struct ModelFile {
        let name: String
        let writer: Int
        let tensors: [ShardSpec]
        var bytes: Int { tensors.reduce(0) { $0 + $1.byteCount } }
    }

    let modelFiles: [ModelFile]
    /// For each rank, which of its own state shards it writes: of copies, one rank each.
    let states: [[Int]]
    let stateLayout: ShardLayout

    /// - Parameters:
    ///   - dtype: of the model's files.
    ///   - isTied: whether `lm_head.weight` is the embedding again, which safetensors hold once.
    init(model: ShardLayout, states: ShardLayout, dtype: DType, isTied: Bool, maxShardBytes: Int) {
        stateLayout = states
        let count = model.rankCount
        var wholes: OrderedDictionary<String, ShardSpec> = [:]
        for spec in model.ranks.joined()
        where wholes[spec.box.name] == nil && !(isTied && spec.box.name == "lm_head.weight") {
            let type = spec.dtype.isFloatingPoint ? dtype : spec.dtype
            wholes[spec.box.name] = ShardSpec(box: ShardBox(whole: spec.box.name, shape: spec.box.shape), dtype: type)
        }
        // Every rank a share of the writing, in files that are not tiny.
        let total = wholes.values.reduce(0) { $0 + $1.byteCount }
        let limit = min(maxShardBytes, max((total + count - 1) / count, 64 << 20))
        var files: [[ShardSpec]] = [], bytes = 0
        for spec in wholes.values {
            if files.isEmpty || bytes + spec.byteCount > limit {
                files.append([])
                bytes = 0
            }
            files[files.count - 1].append(spec)
            bytes += spec.byteCount
        }
        var load = [Int](repeating: 0, count: count)
        func least(_ ranks: some Sequence<Int>) -> Int { ranks.min { load[$0] < load[$1] } ?? 0 }
        modelFiles = files.enumerated().map { index, tensors in
            let writer = least(0..<count)
            load[writer] += tensors.reduce(0) { $0 + $1.byteCount }
            let name =
                files.count == 1
                ? "model.safetensors" : "model-\(padded(index + 1, 5))-of-\(padded(files.count, 5)).safetensors"
            return ModelFile(name: name, writer: writer, tensors: tensors)
        }
        var holders: OrderedDictionary<ShardSpec, [(rank: Int, index: Int)]> = [:]
        for (rank, specs) in states.ranks.enumerated() {
            for (index, spec) in specs.enumerated() where holders[spec]?.last?.rank != rank {
                holders[spec, default: []].append((rank, index))
            }
        }
        var chosen = [[Int]](repeating: [], count: count)
        for (spec, places) in holders {
            let writer = least(places.map(\.rank))
            load[writer] += spec.byteCount
            chosen[writer].append(places.first { $0.rank == writer }!.index)
        }
        self.states = chosen
    }

    /// Bytes of all tensors of all ranks, headers estimated generously.
    var estimatedBytes: UInt64 {
        let model = modelFiles.reduce(0) { $0 + $1.bytes + $1.tensors.count * 512 + 4096 }
        let own = states.enumerated().reduce(0) { sum, rank in
            rank.element.reduce(sum + 4096) { $0 + stateLayout.ranks[rank.offset][$1].byteCount + 1024 }
        }
        return UInt64(model + own)
    }

    /// The names of the model's tensors by file, as `transformers` reads it; nil for one file.
    var index: [UInt8]? {
        guard modelFiles.count > 1 else { return nil }
        var map: JSONObject = [:]
        for file in modelFiles { for spec in file.tensors { map[spec.box.name] = .string(file.name) } }
        let index = JSONValue.object([
            "metadata": .object(["total_size": .int(modelFiles.reduce(0) { $0 + $1.bytes })]),
            "weight_map": .object(map),
        ])
        return Array((index.text() + "\n").utf8)
    }

    /// What a state's box is called in its file.
    static func key(_ box: ShardBox) -> String {
        box.name + "[" + box.ranges.map { "\($0.lowerBound):\($0.upperBound)" }.joined(separator: ",") + "]"
    }
}
