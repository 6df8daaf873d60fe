import Checkpoints
import TensorCore

/// Qwen 3: norms over each head's queries and keys instead of Qwen 2's biases.
enum Qwen3: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(headDim: 128, keyValueHeads: 32, maxPositions: 32768)
        let eps = try config.normEps(), intermediate = try config.size("intermediate_size")
        let activation = try config.activation(), windows = try config.qwenWindows(shape.layers)
        let bias = try config.bool("attention_bias", default: false)
        let outline = DecoderOutline(shape: shape, normEps: eps, rotaries: [try config.rotary(shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                let kind = AttentionKind(scale: shape.attentionScale, window: windows[index])
                return try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(kind: kind, inputBias: bias, outputBias: bias, norm: .perHead(eps: eps)))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, activation: activation)
            }
        }
    }
}
