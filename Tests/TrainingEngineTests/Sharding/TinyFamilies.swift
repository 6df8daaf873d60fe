import Checkpoints
import Models
import OrderedCollections
import TensorCore
import Testing

/// A small model of a family with random weights, the same whenever it is made.
struct TinyFamily: Sendable, CustomTestStringConvertible {
    let name: String
    var settings: [String: JSONValue] = [:]
    var testDescription: String { name }

    var config: ModelConfig {
        var json: JSONObject = [
            "architectures": .array([.string(name + "ForCausalLM")]), "vocab_size": .int(61), "hidden_size": .int(32),
            "num_hidden_layers": .int(3), "num_attention_heads": .int(4), "num_key_value_heads": .int(2),
            "intermediate_size": .int(40), "head_dim": .int(8), "max_position_embeddings": .int(128),
            "rms_norm_eps": .double(1e-5),
        ]
        for (key, value) in settings { json[key] = value }
        return ModelConfig(json)
    }

    func model(dtype: DType = .float32, byName: Bool = false, defersLoading: Bool = false) throws
        -> any CausalLanguageModel
    {
        let make = try #require(ModelRegistry.families[name + "ForCausalLM"])
        return try make(
            config,
            ParameterBuilder(
                source: try RandomWeights(seed: 5, standardDeviation: 0.2, byName: byName), dtype: dtype, device: .cpu,
                defersLoading: defersLoading))
    }

    static let llama = TinyFamily(name: "Llama", settings: ["tie_word_embeddings": .bool(true)])

    /// Every family: biases, windows, norms before, after and between, tied and own heads, mixtures of experts, latent attention.
    static let all: [TinyFamily] = [
        llama,
        TinyFamily(name: "Mistral", settings: ["sliding_window": .int(6)]),
        TinyFamily(name: "Qwen2", settings: ["tie_word_embeddings": .bool(false)]),
        TinyFamily(name: "Qwen3", settings: ["attention_bias": .bool(true)]),
        TinyFamily(
            name: "Gemma2",
            settings: [
                "sliding_window": .int(6), "attn_logit_softcapping": .double(2), "final_logit_softcapping": .double(3),
                "query_pre_attn_scalar": .int(7),
            ]),
        TinyFamily(name: "Gemma3", settings: ["sliding_window": .int(4), "sliding_window_pattern": .int(2)]),
        TinyFamily(name: "Phi3"),
        TinyFamily(name: "Olmo2"),
        TinyFamily(name: "SmolLM3", settings: ["no_rope_layer_interval": .int(2)]),
        TinyFamily(
            name: "Granite", settings: ["residual_multiplier": .double(0.4), "embedding_multiplier": .double(5)]),
        TinyFamily(name: "Mixtral", settings: ["num_local_experts": .int(5)]),
        TinyFamily(
            name: "Qwen3Moe",
            settings: [
                "num_experts": .int(7), "num_experts_per_tok": .int(3), "moe_intermediate_size": .int(12),
                "decoder_sparse_step": .int(2), "norm_topk_prob": .bool(true),
            ]),
        TinyFamily(
            name: "DeepseekV3",
            settings: [
                "num_key_value_heads": .int(4), "n_routed_experts": .int(8), "n_shared_experts": .int(2),
                "moe_intermediate_size": .int(12), "num_experts_per_tok": .int(3), "n_group": .int(4),
                "topk_group": .int(2), "q_lora_rank": .int(12), "kv_lora_rank": .int(10), "qk_rope_head_dim": .int(4),
                "qk_nope_head_dim": .int(6), "v_head_dim": .int(8), "first_k_dense_replace": .int(1),
            ]),
    ]
}
