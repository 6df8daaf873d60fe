import Checkpoints
import TensorCore

/// Gemma 2 (Gemma team 2024): norms before and after, scores and logits soft-capped, a window on every other layer.
enum Gemma2: DecoderFamily {
    static let tiesEmbeddings = true

    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(headDim: 256, keyValueHeads: 4, maxPositions: 8192)
        let gemma = try GemmaSettings(config, shape)
        let softCap = try config.softCap("attn_logit_softcapping", default: 50)
        let windows = try gemma.windows(config) { $0 % 2 == 0 }
        let outline = gemma.outline(builder, rotaries: [try config.rotary(shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try gemma.layer(
                builder, prefix, index: index,
                .init(kind: AttentionKind(scale: gemma.scale, window: windows[index], softCap: softCap)))
        }
    }

    static func logits(_ config: ModelConfig) throws -> LogitsTransform {
        LogitsTransform(softCap: try config.softCap("final_logit_softcapping", default: 30))
    }
}

/// What Gemma 2 and 3 have in common.
struct GemmaSettings {
    let shape: ModelShape
    let scale: Double
    private let normEps: Double
    private let intermediate: Int
    private let activation: Activation
    private let bias: Bool

    init(_ config: ModelConfig, _ shape: ModelShape) throws {
        try config.refuse("use_bidirectional_attention", because: "text is generated from left to right here")
        self.shape = shape
        scale = 1 / (try config.multiplier("query_pre_attn_scalar", default: 256)).squareRoot()
        normEps = try config.normEps()
        intermediate = try config.size("intermediate_size")
        activation = try config.activation("hidden_activation", default: "gelu_pytorch_tanh")
        bias = try config.bool("attention_bias", default: false)
    }

    /// Each layer's window: `layer_types` says which have one, else `isSliding`.
    func windows(_ config: ModelConfig, _ isSliding: (Int) throws -> Bool) throws -> [Int?] {
        let window = try config.slidingWindow(default: 4096)
        return try config.slidingLayers(shape.layers, isSliding).map { isSliding in
            guard isSliding else { return nil }
            guard let window else { throw config.unsupported("sliding_window is null, but layers slide") }
            return window
        }
    }

    func outline(_ builder: ParameterBuilder, rotaries: [RotaryFrequencies]) -> DecoderOutline {
        // transformers keeps this factor in the weights' type.
        var multiplier = Double(shape.hidden).squareRoot()
        if builder.dtype == .bfloat16 { multiplier = roundedToBFloat16(multiplier) }
        return DecoderOutline(
            shape: shape, normEps: normEps, normConvention: .unitOffset, embeddingMultiplier: multiplier,
            rotaries: rotaries)
    }

    func layer(
        _ builder: ParameterBuilder, _ prefix: String, index: Int, _ options: GroupedQueryAttention.Options
    ) throws -> SandwichNormLayer {
        var options = options
        (options.inputBias, options.outputBias) = (bias, bias)
        return try SandwichNormLayer(
            builder, prefix, size: shape.hidden, normEps: normEps, convention: .unitOffset
        ) { name in
            try GroupedQueryAttention(builder, name, layer: index, shape: shape, options)
        } mlp: { name in
            try GatedMLP(
                builder, name, size: shape.hidden, intermediate: intermediate, activation: activation)
        }
    }

    /// Normed queries and keys, as Gemma 3 has them.
    var queryKeyNorm: GroupedQueryAttention.QueryKeyNorm { .perHead(eps: normEps, .unitOffset) }

    private func roundedToBFloat16(_ value: Double) -> Double {
        let bits = Float(value).bitPattern
        return Double(Float(bitPattern: (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    }
}
