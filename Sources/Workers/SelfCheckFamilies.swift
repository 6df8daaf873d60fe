import Checkpoints
import Models
import OrderedCollections
import TensorCore

/// Every model family with random weights and small sizes, its own settings on: windows shorter than the sequences, soft caps,
/// multipliers, layers of both kinds.
enum SelfCheckFamilies {
    static func models() -> [(name: String, model: SelfCheckModel.Make)] {
        ModelRegistry.families.keys.sorted().map { architecture in
            (
                architecture,
                { device, dtype in
                    guard let make = ModelRegistry.families[architecture] else {
                        preconditionFailure("\(architecture) is registered")
                    }
                    let config = ModelConfig(settings(architecture), path: "\(architecture) of the self-check")
                    return try make(
                        config,
                        ParameterBuilder(
                            source: RandomWeights(seed: 5, standardDeviation: 0.08), dtype: dtype, device: device))
                }
            )
        }
    }

    private static func settings(_ architecture: String) -> JSONObject {
        var all: JSONObject = [
            "architectures": .array([.string(architecture)]), "vocab_size": .int(500), "hidden_size": .int(128),
            "num_hidden_layers": .int(2), "num_attention_heads": .int(4), "num_key_value_heads": .int(2),
            "head_dim": .int(64), "intermediate_size": .int(192), "max_position_embeddings": .int(256),
            "rms_norm_eps": .double(1e-5), "rope_theta": .double(10000), "tie_word_embeddings": .bool(true),
            // A family takes of these what it knows.
            "sliding_window": .int(9), "embedding_multiplier": .double(6), "attention_multiplier": .double(0.1),
            "residual_multiplier": .double(0.5), "logits_scaling": .double(2),
            "query_pre_attn_scalar": .int(64), "attn_logit_softcapping": .double(20),
            "final_logit_softcapping": .double(10), "hidden_activation": .string("gelu_pytorch_tanh"),
            "no_rope_layers": .array([.int(1), .int(0)]),
            "num_local_experts": .int(4), "num_experts": .int(4), "num_experts_per_tok": .int(2),
            "moe_intermediate_size": .int(64), "norm_topk_prob": .bool(true), "decoder_sparse_step": .int(1),
            "n_routed_experts": .int(4), "n_shared_experts": .int(1), "n_group": .int(2), "topk_group": .int(1),
            "routed_scaling_factor": .double(1.5), "first_k_dense_replace": .int(1), "kv_lora_rank": .int(32),
            "q_lora_rank": .int(48), "qk_rope_head_dim": .int(16), "qk_nope_head_dim": .int(32),
            "v_head_dim": .int(32),
        ]
        let layers: [JSONValue] = [.string("sliding_attention"), .string("full_attention")]
        if architecture.hasPrefix("Gemma") { all["layer_types"] = .array(layers) }
        if architecture.hasPrefix("DeepSeek") || architecture.hasPrefix("Deepseek") {
            // The rotated part of a head, and as many key heads as query heads.
            all["head_dim"] = .int(16)
            all["num_key_value_heads"] = .int(4)
        }
        return all
    }
}
