import Checkpoints
import TensorCore

/// SmolLM3: Llama with every fourth layer not rotated (NoPE, Yang et al. 2025), and windows where asked for.
enum SmolLM3: DecoderFamily {
    static let tiesEmbeddings = true

    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(keyValueHeads: 4, maxPositions: 32768)
        let eps = try config.normEps(), intermediate = try config.size("intermediate_size")
        let activation = try config.activation()
        let attentionBias = try config.bool("attention_bias", default: false)
        let mlpBias = try config.bool("mlp_bias", default: false)
        let rotated = try rotatedLayers(config, shape.layers)
        let window = try config.slidingWindow()
        let slidesOthers = try config.bool("use_sliding_window", default: false) && window != nil
        let sliding = try config.slidingLayers(shape.layers) { slidesOthers && !rotated[$0] }
        if sliding.contains(true), window == nil {
            throw config.unsupported("layer_types asks for sliding_attention, but there is no sliding_window")
        }
        let outline = DecoderOutline(
            shape: shape, normEps: eps, rotaries: [try config.rotary(shape, defaultTheta: 2_000_000)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                let kind = AttentionKind(scale: shape.attentionScale, window: sliding[index] ? window : nil)
                return try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(
                        kind: kind, rotary: rotated[index] ? 0 : nil, inputBias: attentionBias,
                        outputBias: attentionBias))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, bias: mlpBias,
                    activation: activation)
            }
        }
    }

    /// `no_rope_layers` has a 1 for each layer that is rotated, whatever its name says.
    private static func rotatedLayers(_ config: ModelConfig, _ layers: Int) throws -> [Bool] {
        guard config.has("no_rope_layers") else {
            let interval = try config.int("no_rope_layer_interval", default: 4)
            guard interval > 0 else { throw config.unsupported("no_rope_layer_interval is \(interval)") }
            return (0..<layers).map { ($0 + 1) % interval != 0 }
        }
        let flags = try config.ints("no_rope_layers")
        guard flags.count >= layers else {
            throw config.unsupported("no_rope_layers names \(flags.count) layers; there are \(layers)")
        }
        return flags.prefix(layers).map { $0 != 0 }
    }
}
