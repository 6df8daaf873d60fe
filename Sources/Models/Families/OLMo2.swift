import Checkpoints
import TensorCore

/// OLMo 2 (OLMo team 2024): norms after attention and feed-forward, and over all heads' queries and keys at once.
enum OLMo2: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(maxPositions: 2048)
        let eps = try config.normEps(default: 1e-5), intermediate = try config.size("intermediate_size")
        let activation = try config.activation()
        let bias = try config.bool("attention_bias", default: false)
        let kind = AttentionKind(scale: shape.attentionScale)
        let outline = DecoderOutline(shape: shape, normEps: eps, rotaries: [try config.rotary(shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PostNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(kind: kind, inputBias: bias, outputBias: bias, norm: .fullWidth(eps: eps)))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, activation: activation)
            }
        }
    }
}
