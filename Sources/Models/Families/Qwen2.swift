import Checkpoints
import TensorCore

/// Qwen 2 and 2.5: Llama with biases on queries, keys and values, and windows on its upper layers where `use_sliding_window` is on.
enum Qwen2: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(keyValueHeads: 32, maxPositions: 32768)
        let eps = try config.normEps(), intermediate = try config.size("intermediate_size")
        let activation = try config.activation(), windows = try config.qwenWindows(shape.layers)
        let outline = DecoderOutline(shape: shape, normEps: eps, rotaries: [try config.rotary(shape)])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                let kind = AttentionKind(scale: shape.attentionScale, window: windows[index])
                return try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape, .init(kind: kind, inputBias: true))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, activation: activation)
            }
        }
    }
}

extension ModelConfig {
    /// Each layer's window as Qwen's configurations have it: from layer `max_window_layers` on, and only where
    /// `use_sliding_window` is on; `layer_types` has the last word on which.
    func qwenWindows(_ layers: Int) throws -> [Int?] {
        let window = try bool("use_sliding_window", default: false) ? slidingWindow(default: 4096) : nil
        let first = try int("max_window_layers", default: 28)
        return try slidingLayers(layers) { window != nil && $0 >= first }.map { isSliding in
            guard isSliding else { return nil }
            guard let window else {
                throw unsupported("layer_types asks for sliding_attention, but there is no sliding_window in use")
            }
            return window
        }
    }
}
