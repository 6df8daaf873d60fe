import Checkpoints
import Foundation
import Models
import OrderedCollections

/// Finds out what a model folder or a GGUF file is, from its headers and small files; no weight is read. Everything that is wrong is
/// a finding, so that a broken folder is described as far as it goes.
public enum ModelInspector {
    public static func inspect(_ path: String, workload: MemoryEstimate.Workload = .init()) -> ModelInspection {
        var inspection = ModelInspection(path: path)
        var isDirectory: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
            inspection.add(
                .error, "weights", "\(path): there is nothing here; name a Hugging Face folder or a .gguf file")
            return inspection
        }
        guard isDirectory.boolValue else {
            inspection.inspectGGUF(path, workload)
            return inspection
        }
        inspection.attempt("weights") { inspection in
            let names = Set(try FileManager.default.contentsOfDirectory(atPath: path))
            let ggufs = names.filter { $0.hasSuffix(".gguf") }.sorted()
            if !names.contains("config.json"), ggufs.count == 1 {
                inspection.inspectGGUF(path + "/" + ggufs[0], workload)
            } else if !names.contains("config.json"), names.contains("manifest.json"), names.contains("state.json") {
                try inspection.inspectCheckpoint(path, workload)
            } else {
                inspection.inspectFolder(path, names, workload)
            }
        }
        return inspection
    }
}

extension ModelInspection {
    fileprivate mutating func inspectFolder(
        _ folder: String, _ names: Set<String>, _ workload: MemoryEstimate.Workload
    ) {
        storage = .huggingFace
        noteFiles(names)
        var table = readSafetensors(folder, names: names)
        var config: ModelConfig?
        if names.contains("config.json") {
            attempt("config") { _ in config = try ModelConfig(path: folder + "/config.json") }
        } else if !names.contains("adapter_config.json") {
            add(.error, "config", "there is no config.json in this folder; name a Hugging Face folder or a .gguf file")
        }
        if let config { unpack(&table, config) }
        count(table)
        if let config { describe(config, table, workload) }
        inspectText(folder: folder, names: names, config: config)
    }

    /// A training checkpoint: what it is, and the model in it.
    fileprivate mutating func inspectCheckpoint(_ folder: String, _ workload: MemoryEstimate.Workload) throws {
        guard let checkpoint = try ShardedCheckpoint.open(folder) else {
            add(
                .error, "checkpoint",
                "this is a training checkpoint of one process; fledge export --run RUN writes its model as a folder")
            return
        }
        add(
            .info, "checkpoint",
            "step \(checkpoint.step), written by \(checkpoint.ranks) ranks (\(checkpoint.mesh)): \(checkpoint.fileCount) files, "
                + "\(Self.size(checkpoint.byteCount)), \(checkpoint.tensorNames.count) weights and states; the model is in model/"
        )
        let names = try FileManager.default.contentsOfDirectory(atPath: checkpoint.modelFolder)
        guard names.contains("config.json") else {
            add(
                .error, "checkpoint",
                "it holds an adapter alone; fledge export --run RUN writes that as a folder, with --merge the whole model"
            )
            return
        }
        inspectFolder(checkpoint.modelFolder, Set(names), workload)
    }

    fileprivate mutating func inspectGGUF(_ path: String, _ workload: MemoryEstimate.Workload) {
        storage = .gguf
        attempt("weights") { inspection in
            // Names what else a user may point at.
            try ModelSource.refuseOtherFiles(path)
            let file = try GGUFFile(path: path)
            inspection.weights.files = 1
            let table = inspection.readGGUF(file)
            inspection.count(table)
            inspection.architecture = file.metadata["general.architecture"]?.stringValue
            inspection.attempt("config") { inspection in
                let model = try GGUFModel(file)
                inspection.describe(model.config, table, workload)
            }
            inspection.inspectText(file)
        }
    }

    /// Files that say something by being there.
    private mutating func noteFiles(_ names: Set<String>) {
        let hasSafetensors = names.contains("model.safetensors") || names.contains("model.safetensors.index.json")
        let pickles = names.filter { name in [".bin", ".pt", ".pth"].contains { name.hasSuffix($0) } }.sorted()
        if !hasSafetensors, let pickle = pickles.first(where: { !$0.hasPrefix("training_args") }) {
            add(
                .error, "weights",
                "the weights are a Python pickle (\(pickle)), which can run any code when read; convert them with "
                    + "transformers: from_pretrained(folder).save_pretrained(folder, safe_serialization=True)")
        } else if names.contains("adapter_config.json") {
            add(
                .error, "weights",
                "this is an adapter (adapter_config.json), not a model: name the model it was trained on")
        } else if !hasSafetensors {
            add(
                .error, "weights",
                "there are no weights: neither model.safetensors nor model.safetensors.index.json; fetch the model again"
            )
        }
        let code = names.filter { $0.hasSuffix(".py") }.sorted()
        if !code.isEmpty {
            add(
                .warning, "config",
                "the folder brings Python code (\(code.joined(separator: ", "))); Fledge never runs it")
        }
    }

    private mutating func describe(_ config: ModelConfig, _ table: WeightTable, _ workload: MemoryEstimate.Workload) {
        architecture = config.architecture ?? architecture
        modelType = config.modelType
        attempt("config") { try $0.describeShape(config) }
        attempt("config") { $0.rope = try Self.rope(config) }
        let name = config.architecture ?? config.modelType
        let scores = name.map(ModelRegistry.scoringArchitectures.contains) ?? false
        if scores { add(.info, "config", "a reward or value model: it scores text and generates none") }
        if let name, !scores, ModelRegistry.families[name] == nil {
            let known = ModelRegistry.families.keys.sorted().joined(separator: ", ")
            add(.error, "config", "architecture '\(name)' is not known; known are \(known)")
        } else if let name {
            // The family's own code says what it refuses and which tensors it misses.
            var named = table
            named.config = config
            do {
                try ModelRegistry.check(
                    config.without("quantization_config"), architecture: name, weights: named)
            } catch let error as ModelError where error.code == .weights {
                if weights.tensors > 0 { addProblems(error) }
            } catch {
                add(.error, "config", "\(error)")
            }
        } else {
            add(.error, "config", "neither 'architectures' nor 'model_type' names the architecture")
        }
        if let said = (try? config.optionalString("dtype")) ?? (try? config.optionalString("torch_dtype")),
            let stored = weights.types.first?.name, storage == .huggingFace, said != stored,
            !config.has("quantization_config")
        {
            add(.info, "weights", "config.json says \(said), the weights are \(stored); what is stored counts")
        }
        if let shape, weights.parts.total > 0 {
            let adapted = table.entries.filter { name, entry in
                entry.shape.count == 2 && [.attention, .mlp].contains(ParameterParts.part(of: name))
            }
            memory = MemoryEstimate.all(
                parameters: weights.parts.total, shape: shape,
                adapterRows: adapted.values.reduce(0) { $0 + $1.shape[0] + $1.shape[1] }, workload: workload)
        }
    }

    private mutating func addProblems(_ error: ModelError) {
        let shown = 20
        for problem in error.problems.prefix(shown) { add(.error, "weights", "tensor \(problem)") }
        if error.problems.count > shown {
            add(.error, "weights", "and \(error.problems.count - shown) tensors more that do not fit")
        }
    }

    private mutating func describeShape(_ config: ModelConfig) throws {
        isTied = try config.bool("tie_word_embeddings", default: false)
        contextLength = try config.optionalInt("max_position_embeddings")
        let heads = try config.positive("num_attention_heads")
        let hidden = try config.positive("hidden_size")
        let keyValueHeads = config.has("num_key_value_heads") ? try config.positive("num_key_value_heads") : heads
        let headDim = config.has("head_dim") ? try config.positive("head_dim") : max(1, hidden / heads)
        var cacheWidth = 2 * keyValueHeads * headDim
        if config.has("kv_lora_rank") {
            // Latent attention keeps one latent and one rotated key for all heads.
            cacheWidth = try config.positive("kv_lora_rank") + config.positive("qk_rope_head_dim")
        }
        let expertKeys = ["num_experts", "num_local_experts", "n_routed_experts"]
        let experts = try expertKeys.first { config.has($0) }.map { try config.positive($0) } ?? 0
        let perToken = experts > 0 && config.has("num_experts_per_tok") ? try config.positive("num_experts_per_tok") : 1
        let size = experts > 0 && config.has("moe_intermediate_size") ? "moe_intermediate_size" : "intermediate_size"
        shape = Shape(
            layers: try config.positive("num_hidden_layers"), hidden: hidden, queryHeads: heads,
            keyValueHeads: keyValueHeads, headDim: headDim, intermediate: try config.positive(size),
            vocabulary: try config.positive("vocab_size"), experts: experts,
            expertsPerToken: experts > 0 ? perToken : 0, cacheWidth: cacheWidth
        )
        attention = try Self.attention(config, layers: shape?.layers ?? 0)
    }

    private static func attention(_ config: ModelConfig, layers: Int) throws -> String {
        let window = try config.optionalInt("sliding_window")
        let size = window.map { " of \($0)" } ?? ""
        guard let kinds = try config.strings("layer_types") else {
            let isUsed = try config.bool("use_sliding_window", default: true)
            return window != nil && isUsed ? "sliding window\(size)" : "full"
        }
        var counts: OrderedDictionary<String, Int> = [:]
        for kind in kinds { counts[kind, default: 0] += 1 }
        return counts.map { kind, count in
            "\(count) \(kind.replacing("_attention", with: ""))" + (kind.hasPrefix("sliding") ? size : "")
        }.joined(separator: ", ")
    }

    private static func rope(_ config: ModelConfig) throws -> String {
        func describe(_ rope: RopeParameters) throws -> String {
            var text = "\(rope.type), base \(rope.theta.formatted)"
            for key in ["factor", "original_max_position_embeddings"] {
                if let value = try rope.parameters.optionalDouble(key) {
                    text += ", \(key == "factor" ? "factor" : "trained on") \(value.formatted)"
                }
            }
            if rope.partialRotaryFactor != 1 { text += ", \(rope.partialRotaryFactor.formatted) of each head" }
            return text
        }
        let byLayer = try config.nested("rope_parameters")?.object.values.contains { $0.objectValue != nil } ?? false
        guard byLayer || config.has("rope_local_base_freq") else { return try describe(config.rope()) }
        return try ["full_attention", "sliding_attention"].map {
            "\($0.replacing("_attention", with: "")): \(try describe(config.rope(layerType: $0)))"
        }.joined(separator: "; ")
    }
}

extension ModelConfig {
    /// - Throws: `CheckpointError.configuration` unless the key holds an integer from 1 to 2²⁸.
    func positive(_ key: String) throws -> Int {
        let value = try int(key)
        guard value > 0, value <= 1 << 28 else {
            throw CheckpointError(.configuration, path, "'\(key)' is \(value), not a size")
        }
        return value
    }
}

extension Double {
    /// Without ".0" where it is a whole number.
    var formatted: String { Int(exactly: self).map { String($0) } ?? "\(self)" }
}
