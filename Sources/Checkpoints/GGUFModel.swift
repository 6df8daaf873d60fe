internal import OrderedCollections
public import TensorCore

/// A GGUF file seen as the Hugging Face checkpoint it was converted from: HF's tensor names, row order and `config.json`.
public final class GGUFModel {
    public let file: GGUFFile
    public let config: ModelConfig
    /// HF's names, in file order.
    public let tensorNames: [String]
    private let family: GGUFFamily
    private let storedNames: [String: String]

    /// - Throws: `CheckpointError.unknownArchitecture` for a family whose tensors cannot be mapped, `configuration` for
    ///   metadata that is missing, and what ``GGUFFile`` throws.
    public convenience init(path: String) throws { try self.init(GGUFFile(path: path)) }

    public init(_ file: GGUFFile) throws {
        self.file = file
        if let parts = file.metadata["split.count"]?.intValue, parts > 1 {
            throw CheckpointError(
                .unsupported, file.path, "is one of the \(parts) parts of a split model",
                remedy: "join them with 'llama-gguf-split --merge'")
        }
        guard let architecture = file.metadata["general.architecture"]?.stringValue else {
            throw CheckpointError(.configuration, file.path, "the metadata has no general.architecture")
        }
        guard let family = GGUFFamily.all.first(where: { $0.name == architecture }) else {
            throw CheckpointError(
                .unknownArchitecture, file.path, "the GGUF architecture '\(architecture)' is not known",
                remedy: "known are: " + GGUFFamily.all.map(\.name).joined(separator: ", "))
        }
        self.family = family
        config = try GGUFConfig(file, family).config()
        var storedNames: [String: String] = [:]
        var tensorNames: [String] = []
        for stored in file.tensors.keys where !GGUFFamily.derivedTensors.contains(stored) {
            guard let name = GGUFFamily.huggingFaceName(stored) else {
                throw CheckpointError(
                    .unsupported, file.path, "tensor '\(stored)' has no place in a '\(architecture)' model")
            }
            storedNames[name] = stored
            tensorNames.append(name)
        }
        self.storedNames = storedNames
        self.tensorNames = tensorNames
    }

    private func storedName(_ name: String) throws -> String {
        guard let stored = storedNames[name] else {
            throw CheckpointError(.missingTensor, file.path, "there is no tensor '\(name)'")
        }
        return stored
    }

    /// Hugging Face's name of a tensor of the file; nil for one that the config says the same as.
    public static func name(ofStored stored: String) -> String? { GGUFFamily.huggingFaceName(stored) }

    public func contains(_ name: String) -> Bool { storedNames[name] != nil }

    public func shape(of name: String) throws -> [Int] { try file.entry(named: storedName(name)).shape }

    /// The tensor under its HF name and in HF's row order, dequantised to `dtype`, on the CPU.
    public func tensor(named name: String, dtype: DType = .float32) throws -> Tensor {
        let stored = try storedName(name)
        return try file.tensor(named: stored, dtype: dtype, rowOrder: try rowOrder(stored))
    }

    func byteCount(of name: String) throws -> Int { try file.entry(named: storedName(name)).range.count }

    /// Expands the tensor into memory of its shape: in place on the CPU, by way of one tensor's copy elsewhere.
    func load(_ destination: TensorDestination) throws {
        let stored = try storedName(destination.name)
        try file.load(stored, into: destination.tensor, rowOrder: try rowOrder(stored))
    }

    /// llama.cpp rotates adjacent rows, HF the two halves of a head, so the converter permutes the rows of q and k: undone
    /// here. (`LlamaModel.permute` in llama.cpp's converter, `LlamaTensorProcessor` in transformers.)
    private func rowOrder(_ stored: String) throws -> RowOrder? {
        guard family.permutesRotaryRows else { return nil }
        let headsKey: String
        if stored.contains(".attn_q.") {
            headsKey = "num_attention_heads"
        } else if stored.contains(".attn_k.") {
            headsKey = "num_key_value_heads"
        } else {
            return nil
        }
        let heads = try config.int(headsKey)
        let rows = try file.entry(named: stored).shape.first ?? 0
        guard heads > 0, rows > 0, rows % (2 * heads) == 0 else {
            throw CheckpointError(
                .malformed, file.path, "tensor '\(stored)' has \(rows) rows, which \(heads) heads do not divide")
        }
        return RowOrder(headSize: rows / heads)
    }
}

/// A family of models that GGUF files hold; one line each.
struct GGUFFamily: Sendable {
    /// llama.cpp's name.
    let name: String
    let modelType: String
    let architecture: String
    /// Whether llama.cpp stores q and k for adjacent-pair rotation.
    let permutesRotaryRows: Bool

    static let all = [
        GGUFFamily(name: "llama", modelType: "llama", architecture: "LlamaForCausalLM", permutesRotaryRows: true),
        GGUFFamily(name: "qwen2", modelType: "qwen2", architecture: "Qwen2ForCausalLM", permutesRotaryRows: false),
        GGUFFamily(name: "qwen3", modelType: "qwen3", architecture: "Qwen3ForCausalLM", permutesRotaryRows: false),
    ]

    /// Tensors that the converter derives from `config.json`; the config synthesised from the file says the same.
    static let derivedTensors: Set<String> = ["rope_freqs.weight"]

    private static let topLevel = [
        "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    ]
    private static let inBlock = [
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    ]

    /// `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`; nil for names of other families.
    static func huggingFaceName(_ stored: String) -> String? {
        let parts = stored.split(separator: ".", omittingEmptySubsequences: false)
        guard let suffix = parts.last, suffix == "weight" || suffix == "bias" else { return nil }
        if parts.count == 2, let module = topLevel[String(parts[0])] { return "\(module).\(suffix)" }
        guard parts.count == 4, parts[0] == "blk", let layer = Int(parts[1]), layer >= 0, String(layer) == parts[1],
            let module = inBlock[String(parts[2])]
        else { return nil }
        return "model.layers.\(layer).\(module).\(suffix)"
    }
}
