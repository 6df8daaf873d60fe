import Checkpoints
import TensorCore

/// Phi-3 and Phi-4 (Abdin et al. 2024): queries, keys and values in one tensor of the checkpoint, gate and up in another; heads
/// rotated in part; LongRoPE.
enum Phi3: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(maxPositions: 4096)
        let eps = try config.normEps(default: 1e-5), intermediate = try config.size("intermediate_size")
        let activation = try config.activation()
        let kind = AttentionKind(scale: shape.attentionScale, window: try config.slidingWindow())
        let outline = DecoderOutline(shape: shape, normEps: eps, rotaries: [try rotary(config, shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape, .init(kind: kind, isFused: true))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, activation: activation,
                    isFused: true)
            }
        }
    }

    private static func rotary(_ config: ModelConfig, _ shape: ModelShape) throws -> RotaryFrequencies {
        var rope = try config.rope()
        // Early checkpoints called theirs yarn, as well as su.
        if rope.type == "yarn" { rope.type = "longrope" }
        guard rope.type == "default" || rope.type == "longrope" else {
            throw rope.parameters.unsupported("rope_type '\(rope.type)'; Phi-3 has default and longrope")
        }
        return try config.rotary(
            rope, headDim: shape.headDim, maxPositions: shape.maxPositions, allowsPartial: true,
            originalLength: config.int("original_max_position_embeddings", default: 4096))
    }
}
