import Checkpoints
import TensorCore

/// Qwen3's mixture of experts (Qwen Team 2025): Qwen3's attention; layers are dense or sparse by `mlp_only_layers` and
/// `decoder_sparse_step`.
enum Qwen3Moe: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(keyValueHeads: 4, maxPositions: 32768)
        let eps = try config.normEps(), activation = try config.activation()
        let bias = try config.bool("attention_bias", default: false)
        let window =
            try config.bool("use_sliding_window", default: false) ? try config.slidingWindow(default: 4096) : nil
        let sparse = try sparseLayers(config, shape.layers)
        let experts: ExpertShape? =
            sparse.isEmpty
            ? nil
            : try config.experts(
                count: config.size("num_experts", or: "num_local_experts", default: 128), layers: sparse, perToken: 8)
        let expertSize = sparse.isEmpty ? 0 : try config.size("moe_intermediate_size", default: 768)
        let normalizes = try config.bool("norm_topk_prob", default: false)
        let outline = DecoderOutline(
            shape: shape, normEps: eps, rotaries: [try config.rotary(shape)], experts: experts)
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(
                        kind: .init(scale: shape.attentionScale, window: window), inputBias: bias, outputBias: bias,
                        norm: .perHead(eps: eps)))
            } mlp: { name in
                guard let experts, sparse.contains(index) else {
                    return try GatedMLP(
                        builder, name, size: shape.hidden,
                        intermediate: config.size("intermediate_size", default: 6144),
                        activation: activation)
                }
                return MixtureOfExperts(
                    layer: index,
                    router: SoftmaxRouter(
                        weight: try builder.parameter(
                            name + ".gate.weight", [experts.experts, shape.hidden], gradient: .stream),
                        expertsPerToken: experts.expertsPerToken, normalizes: normalizes),
                    experts: try Experts(
                        builder, name + ".experts", count: experts.experts, size: shape.hidden,
                        intermediate: expertSize, activation: activation))
            }
        }
    }

    private static func sparseLayers(_ config: ModelConfig, _ layers: Int) throws -> [Int] {
        let step = try config.size("decoder_sparse_step", default: 1)
        let dense = try Set(config.ints("mlp_only_layers"))
        let hasExperts = try config.int("num_experts", default: config.int("num_local_experts", default: 128)) > 0
        return (0..<layers).filter { hasExperts && !dense.contains($0) && ($0 + 1) % step == 0 }
    }
}
