public import Checkpoints

extension LlamaConfig {
    /// Reads `config.json` as `transformers` does.
    /// - Throws: `CheckpointError` for missing or mistyped keys, ``ModelError`` for settings that are not supported.
    public init(_ config: ModelConfig) throws {
        let hidden = try config.int("hidden_size")
        let heads = try config.int("num_attention_heads")
        let layers = try config.int("num_hidden_layers")
        let vocabulary = try config.int("vocab_size")
        let intermediate = try config.int("intermediate_size")
        for (name, value) in [
            ("hidden_size", hidden), ("num_attention_heads", heads), ("num_hidden_layers", layers),
            ("vocab_size", vocabulary), ("intermediate_size", intermediate),
        ] where value < 1 || value > 1 << 24 {
            throw ModelError(.unsupported, "\(config.path): \(name) is \(value)")
        }
        let keyValueHeads = try config.int("num_key_value_heads", default: heads)
        let headDim = try config.int("head_dim", default: hidden / heads)
        guard keyValueHeads > 0, heads % keyValueHeads == 0, headDim > 0, headDim % 2 == 0 else {
            throw ModelError(
                .unsupported,
                "\(config.path): \(heads) heads over \(keyValueHeads) key-value heads of size \(headDim) do not fit")
        }
        let activation = try config.optionalString("hidden_act") ?? "silu"
        guard activation == "silu" || activation == "swish" else {
            throw ModelError(.unsupported, "\(config.path): hidden_act '\(activation)'; Llama here knows silu")
        }
        self.init(
            shape: ModelShape(
                vocabulary: vocabulary, hidden: hidden, layers: layers, queryHeads: heads,
                keyValueHeads: keyValueHeads, headDim: headDim,
                maxPositions: try config.int("max_position_embeddings", default: 2048)),
            intermediate: intermediate, normEps: try config.double("rms_norm_eps", default: 1e-6),
            rotary: RotaryFrequencies(
                headDim: headDim, theta: try config.rope().theta, scaling: try Self.scaling(config)),
            attentionBias: try config.bool("attention_bias", default: false),
            mlpBias: try config.bool("mlp_bias", default: false),
            tiedEmbeddings: try config.bool("tie_word_embeddings", default: false))
    }

    private static func scaling(_ config: ModelConfig) throws -> RotaryFrequencies.Scaling {
        let rope = try config.rope()
        switch rope.type {
        case "default": return .none
        case "linear": return .linear(factor: try rope.parameters.double("factor"))
        case "llama3":
            return .llama3(
                factor: try rope.parameters.double("factor"),
                lowFrequency: try rope.parameters.double("low_freq_factor"),
                highFrequency: try rope.parameters.double("high_freq_factor"),
                originalLength: try rope.parameters.double("original_max_position_embeddings"))
        default:
            throw ModelError(
                .unsupported, "\(config.path): rope type '\(rope.type)'; known are default, linear and llama3")
        }
    }
}
