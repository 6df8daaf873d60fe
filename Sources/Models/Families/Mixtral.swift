import Checkpoints
import TensorCore

/// Mixtral (Jiang et al. 2024): Mistral's attention, and a mixture of experts in every layer.
enum Mixtral: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        let shape = try config.decoderShape(keyValueHeads: 8, maxPositions: 4096 * 32)
        let eps = try config.normEps(default: 1e-5), intermediate = try config.size("intermediate_size")
        let activation = try config.activation()
        let window = try config.slidingWindow()
        let experts = try config.experts(
            count: config.size("num_local_experts", or: "num_experts", default: 8), layers: Array(0..<shape.layers),
            perToken: 2)
        let outline = DecoderOutline(
            shape: shape, normEps: eps, rotaries: [try config.rotary(shape, defaultTheta: 1_000_000)],
            experts: experts)
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(kind: .init(scale: shape.attentionScale, window: window)))
            } mlp: { _ in
                let name = prefix + ".block_sparse_moe"
                return MixtureOfExperts(
                    layer: index,
                    router: SoftmaxRouter(
                        weight: try builder.parameter(
                            name + ".gate.weight", [experts.experts, shape.hidden],
                            storedAs: prefix + ".mlp.gate.weight", gradient: .stream),
                        expertsPerToken: experts.expertsPerToken, normalizes: true),
                    experts: try Experts(
                        builder, name + ".experts", whole: prefix + ".mlp.experts", count: experts.experts,
                        size: shape.hidden, intermediate: intermediate, activation: activation, names: .mixtral))
            }
        }
    }
}
