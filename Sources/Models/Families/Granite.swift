import Checkpoints
import TensorCore

/// Granite 3: Llama with multipliers on embeddings, attention scores, the residual stream and logits.
enum Granite: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(maxPositions: 2048)
        let eps = try config.normEps(), intermediate = try config.size("intermediate_size")
        let activation = try config.activation()
        let attentionBias = try config.bool("attention_bias", default: false)
        let mlpBias = try config.bool("mlp_bias", default: false)
        let kind = AttentionKind(scale: try config.multiplier("attention_multiplier"))
        let residual = try config.multiplier("residual_multiplier")
        let outline = DecoderOutline(
            shape: shape, normEps: eps, embeddingMultiplier: try config.multiplier("embedding_multiplier"),
            rotaries: [try config.rotary(shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(
                builder, prefix, size: shape.hidden, normEps: eps, residualMultiplier: residual
            ) { name in
                try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(kind: kind, inputBias: attentionBias, outputBias: attentionBias))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, bias: mlpBias,
                    activation: activation)
            }
        }
    }

    static func logits(_ config: ModelConfig) throws -> LogitsTransform {
        LogitsTransform(scale: 1 / (try config.multiplier("logits_scaling")))
    }
}
