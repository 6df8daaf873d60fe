import Checkpoints
import OrderedCollections
import RolloutCore
import TensorCore

/// Folders of random bits in the shape of known models, for measurements that need no weights that mean anything.
public struct RandomModelFolder: Sendable {
    let vocabulary, hidden, layers, heads, keyValueHeads, intermediate: Int

    private init(
        vocabulary: Int, hidden: Int, layers: Int, heads: Int, keyValueHeads: Int, intermediate: Int
    ) {
        self.vocabulary = vocabulary
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.keyValueHeads = keyValueHeads
        self.intermediate = intermediate
    }

    /// By name; all of Llama's architecture, output projection untied, bfloat16.
    public static let shapes: [String: RandomModelFolder] = [
        "smollm2-135m": .init(
            vocabulary: 49152, hidden: 576, layers: 30, heads: 9, keyValueHeads: 3, intermediate: 1536),
        "qwen2-1.5b": .init(
            vocabulary: 151936, hidden: 1536, layers: 28, heads: 12, keyValueHeads: 2, intermediate: 8960),
        "llama-3.2-3b": .init(
            vocabulary: 128256, hidden: 3072, layers: 28, heads: 24, keyValueHeads: 8, intermediate: 8192),
        "qwen2-7b": .init(
            vocabulary: 152064, hidden: 3584, layers: 28, heads: 28, keyValueHeads: 4, intermediate: 18944),
        "llama-3-8b": .init(
            vocabulary: 128256, hidden: 4096, layers: 32, heads: 32, keyValueHeads: 8, intermediate: 14336),
    ]

    private var tensorShapes: [(name: String, shape: [Int])] {
        let headDim = hidden / heads
        var all: [(String, [Int])] = [("model.embed_tokens.weight", [vocabulary, hidden])]
        for layer in 0..<layers {
            let prefix = "model.layers.\(layer)."
            all += [
                (prefix + "input_layernorm.weight", [hidden]),
                (prefix + "self_attn.q_proj.weight", [hidden, hidden]),
                (prefix + "self_attn.k_proj.weight", [keyValueHeads * headDim, hidden]),
                (prefix + "self_attn.v_proj.weight", [keyValueHeads * headDim, hidden]),
                (prefix + "self_attn.o_proj.weight", [hidden, hidden]),
                (prefix + "post_attention_layernorm.weight", [hidden]),
                (prefix + "mlp.gate_proj.weight", [intermediate, hidden]),
                (prefix + "mlp.up_proj.weight", [intermediate, hidden]),
                (prefix + "mlp.down_proj.weight", [hidden, intermediate]),
            ]
        }
        return all + [("model.norm.weight", [hidden]), ("lm_head.weight", [vocabulary, hidden])]
    }

    /// Writes the folder; every tensor is the beginning of the same random bits.
    /// - Throws: `CheckpointError`, such as `diskFull`.
    public func write(to folder: String) throws {
        let shapes = tensorShapes
        let largest = shapes.map { $0.shape.reduce(1, *) }.max() ?? 1
        let bits = try Tensor.empty([largest], dtype: .bfloat16)
        try bits.withUnsafeMutableBytes { bytes in
            // The first part is drawn, the rest copied from it.
            let drawn = min(bytes.count, 1 << 24) / 8 * 8
            for offset in stride(from: 0, to: drawn, by: 8) {
                bytes.storeBytes(of: SplitMix64.seed(1, UInt64(offset)), toByteOffset: offset, as: UInt64.self)
            }
            for offset in stride(from: drawn, to: bytes.count, by: max(8, drawn)) {
                let count = min(drawn, bytes.count - offset)
                bytes.baseAddress!.advanced(by: offset).copyMemory(from: bytes.baseAddress!, byteCount: count)
            }
        }
        let config: JSONObject = [
            "architectures": .array([.string("LlamaForCausalLM")]), "model_type": .string("llama"),
            "vocab_size": .int(vocabulary), "hidden_size": .int(hidden), "num_hidden_layers": .int(layers),
            "num_attention_heads": .int(heads), "num_key_value_heads": .int(keyValueHeads),
            "intermediate_size": .int(intermediate), "max_position_embeddings": .int(4096),
            "rms_norm_eps": .double(1e-6), "tie_word_embeddings": .bool(false),
        ]
        try HuggingFaceExporter.write(
            tensors: shapes.map { name, shape in
                (name: name, tensor: try bits.narrowed(0, 0..<shape.reduce(1, *)).reshaped(shape))
            }, config: ModelConfig(config), to: folder)
    }
}
