import Checkpoints
import TensorCore

/// Mistral (Jiang et al. 2023): Llama without biases, every layer looking through a window.
enum Mistral: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(keyValueHeads: 8, maxPositions: 4096 * 32)
        let eps = try config.normEps(), intermediate = try config.size("intermediate_size")
        let activation = try config.activation()
        let kind = AttentionKind(scale: shape.attentionScale, window: try config.slidingWindow(default: 4096))
        let outline = DecoderOutline(shape: shape, normEps: eps, rotaries: [try config.rotary(shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                try GroupedQueryAttention(builder, name, layer: index, shape: shape, .init(kind: kind))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, activation: activation)
            }
        }
    }
}
