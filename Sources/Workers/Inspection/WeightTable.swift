import Checkpoints
import Foundation
import Models
import OrderedCollections
import TensorCore

/// Names, shapes and types of a model's tensors, from the headers of as many of its files as can be read.
struct WeightTable: WeightSource {
    struct Entry {
        let shape: [Int]
        /// nil for GGUF's blocks.
        let dtype: DType?
        let typeName: String
        let bytes: Int
    }

    let place: String
    var entries: [String: Entry] = [:]
    var config: ModelConfig?
    /// What may be there without being asked for.
    var spare: Set<String> = []

    init(_ place: String) { self.place = place }

    func problem(_ name: String, shape: [Int]) -> WeightProblem? {
        guard let entry = entries[name] else { return .missing(name) }
        guard entry.shape == shape else { return .shape(name, found: entry.shape, wanted: shape) }
        if let dtype = entry.dtype, !dtype.isFloatingPoint { return .type(name, found: "\(dtype)") }
        return nil
    }

    func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
        throw WorkerError(.badCheckpoint, "\(place): only the headers were read, not '\(name)'")
    }

    var tensorNames: [String] {
        entries.keys.filter { config?.isOfExtraLayer($0) != true && !spare.contains($0) }.sorted()
    }
    func contains(_ name: String) -> Bool { entries[name] != nil }
}

extension ModelInspection {
    /// Reads the headers of a folder's safetensors: each file that is missing or bad is a finding.
    mutating func readSafetensors(_ folder: String, names: Set<String>) -> WeightTable {
        var table = WeightTable(folder)
        let index = "model.safetensors.index.json"
        var wanted: [String: [String]] = [:]
        if names.contains(index) {
            attempt("weights") { inspection in
                let map = try ModelConfig(path: folder + "/" + index).nested("weight_map")
                guard let map else {
                    throw WorkerError(.badCheckpoint, "\(folder)/\(index): there is no object 'weight_map'")
                }
                for (tensor, shard) in map.object {
                    guard let shard = shard.stringValue, SafetensorsModel.isPlainName(shard) else {
                        inspection.add(
                            .error, "weights", "\(index): the shard of tensor '\(tensor)' is no plain file name")
                        continue
                    }
                    wanted[shard, default: []].append(tensor)
                }
            }
        } else if names.contains("model.safetensors") {
            wanted["model.safetensors"] = []
        }
        var holder: [String: String] = [:]
        for (shard, promised) in wanted.sorted(by: { $0.key < $1.key }) {
            guard names.contains(shard) else {
                add(.error, "weights", "\(shard) is missing; \(promised.count) tensors are in it")
                continue
            }
            attempt("weights") { inspection in
                let file = try SafetensorsFile(path: folder + "/" + shard)
                inspection.weights.files += 1
                for name in file.tensorNames {
                    let entry = try file.entry(named: name)
                    if let other = holder.updateValue(shard, forKey: name) {
                        inspection.add(.error, "weights", "tensor '\(name)' is in two shards, \(other) and \(shard)")
                    }
                    table.entries[name] = WeightTable.Entry(
                        shape: entry.shape, dtype: entry.dtype, typeName: "\(entry.dtype)", bytes: entry.range.count)
                }
                let absent = promised.filter { !file.contains($0) }
                if let first = absent.min() {
                    inspection.add(
                        .error, "weights",
                        "\(shard) lacks \(absent.count) of the tensors that the index promises, such as '\(first)'")
                }
            }
        }
        return table
    }

    /// The table of a GGUF file, under Hugging Face's names where it knows the tensor.
    func readGGUF(_ file: GGUFFile) -> WeightTable {
        var table = WeightTable(file.path)
        for (stored, entry) in file.tensors where stored != "rope_freqs.weight" {
            table.entries[GGUFModel.name(ofStored: stored) ?? stored] = WeightTable.Entry(
                shape: entry.shape, dtype: nil, typeName: entry.type.name, bytes: entry.range.count)
        }
        return table
    }

    /// Puts packed weights (GPTQ, AWQ) into the table as the weights that they are.
    mutating func unpack(_ table: inout WeightTable, _ config: ModelConfig) {
        attempt("weights") { inspection in
            guard let format = try PackedFormat(config) else { return }
            inspection.add(
                .info, "weights",
                "the weights are quantised (\(format.summary)) and expanded as they are read: they can be sampled from, "
                    + "evaluated and adapted (LoRA), not trained in full")
            let entries = table.entries
            // Values are not read here: whether a packed weight's bias is all zero, and so may be one too many, is not known.
            let packed = try PackedWeights(format, place: table.place, names: entries.keys.sorted()) { name in
                (entries[name]?.dtype ?? .uint8, entries[name]?.shape ?? [])
            } isZero: { _ in
                true
            }
            let parts = Set(packed.modules.values.flatMap(\.partNames))
            table.entries = entries.filter { !parts.contains($0.key) }
            table.spare = Set(packed.modules.values.map { $0.name + ".bias" })
            for (name, module) in packed.modules {
                table.entries[name] = WeightTable.Entry(
                    shape: [module.outputs, module.inputs], dtype: nil,
                    typeName: "\(format.method.rawValue) int\(format.bits)",
                    bytes: module.partNames.reduce(0) { $0 + (entries[$1]?.bytes ?? 0) })
            }
        }
    }

    mutating func count(_ table: WeightTable) {
        var types: [String: Int] = [:]
        for (name, entry) in table.entries {
            weights.parts.add(name, entry.shape.reduce(1, *))
            weights.bytes += entry.bytes
            types[entry.typeName, default: 0] += entry.bytes
        }
        weights.tensors = table.entries.count
        weights.types = types.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { (name: $0.key, bytes: $0.value) }
    }
}
