import Checkpoints
import TensorCore

/// Gemma 3's language model (Gemma team 2025): Gemma 2 with normed queries and keys in place of soft-capped scores, five layers in
/// six sliding, which rotate by a base of their own.
enum Gemma3: DecoderFamily {
    static let tiesEmbeddings = true

    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(headDim: 256, keyValueHeads: 4, maxPositions: 131_072)
        let gemma = try GemmaSettings(config, shape)
        let pattern = try config.int("sliding_window_pattern", default: 6)
        guard pattern > 0 else { throw config.unsupported("sliding_window_pattern is \(pattern)") }
        let windows = try gemma.windows(config) { ($0 + 1) % pattern != 0 }
        let outline = gemma.outline(
            builder,
            rotaries: [try rotary(config, shape, isSliding: false), try rotary(config, shape, isSliding: true)])
        return try DecoderBody(outline, builder) { index, prefix in
            // transformers reads attn_logit_softcapping of this family and leaves it at that.
            try gemma.layer(
                builder, prefix, index: index,
                .init(
                    kind: AttentionKind(scale: gemma.scale, window: windows[index]),
                    rotary: windows[index] == nil ? 0 : 1, norm: gemma.queryKeyNorm))
        }
    }

    static func logits(_ config: ModelConfig) throws -> LogitsTransform {
        LogitsTransform(softCap: try config.softCap("final_logit_softcapping", default: nil))
    }

    /// The older spelling scales the full layers only (`rope_scaling`), and has the sliding ones' base in `rope_local_base_freq`.
    private static func rotary(
        _ config: ModelConfig, _ shape: ModelShape, isSliding: Bool
    ) throws -> RotaryFrequencies {
        let layerType = isSliding ? "sliding_attention" : "full_attention"
        var rope = try config.rope(layerType: layerType, defaultTheta: isSliding ? 10_000 : 1_000_000)
        if isSliding, !config.has("rope_parameters"), !config.has("rope_local_base_freq") {
            (rope.theta, rope.type) = (10_000, "default")
        }
        return try config.rotary(rope, headDim: shape.headDim, maxPositions: shape.maxPositions)
    }
}
