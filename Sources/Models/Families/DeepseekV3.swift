import Checkpoints
import TensorCore

#if canImport(Glibc)
    import Glibc
#endif

/// DeepSeek-V3 (DeepSeek-AI 2024): latent attention, sigmoid routing within groups of experts, shared experts, the first layers
/// dense. The extra layers for predicting several tokens are left aside, as `transformers` leaves them.
enum DeepseekV3: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        guard !config.has("quantization_config") else {
            throw config.unsupported(
                "the weights are quantised (quantization_config); take a checkpoint in bfloat16, as DeepSeek's conversion gives"
            )
        }
        let attention = try attention(config), eps = try config.normEps(), activation = try config.activation()
        let shape = ModelShape(
            vocabulary: try config.size("vocab_size"), hidden: try config.size("hidden_size"),
            layers: try config.size("num_hidden_layers"), queryHeads: attention.heads, keyValueHeads: attention.heads,
            headDim: attention.keyDim, valueHeadDim: attention.valueDim,
            maxPositions: try config.size("max_position_embeddings", default: 4096))
        let rotary = try config.rotary(
            config.rope(), headDim: attention.rotatedDim, maxPositions: shape.maxPositions)
        let firstSparse = try config.int("first_k_dense_replace", default: 3)
        let sparse = Array(0..<shape.layers).filter { $0 >= firstSparse }
        let mixture = sparse.isEmpty ? nil : try Mixture(config, sparse)
        let outline = DecoderOutline(
            shape: shape, normEps: eps, rotaries: [rotary], experts: mixture?.experts)
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: eps) { name in
                try LatentAttention(builder, name, layer: index, hidden: shape.hidden, attention)
            } mlp: { name in
                guard let mixture, index >= firstSparse else {
                    return try GatedMLP(
                        builder, name, size: shape.hidden,
                        intermediate: config.size("intermediate_size", default: 18432), activation: activation)
                }
                return try mixture.layer(builder, name, index: index, hidden: shape.hidden, activation)
            }
        }
    }

    private static func attention(_ config: ModelConfig) throws -> LatentAttention.Options {
        let heads = try config.size("num_attention_heads")
        let keyValueHeads = try config.int("num_key_value_heads", default: heads)
        guard keyValueHeads == heads else {
            throw config.unsupported(
                "num_key_value_heads is \(keyValueHeads); latent attention has one for each of \(heads) heads")
        }
        let plain = try config.size("qk_nope_head_dim", default: 128)
        let rotated = try config.size("qk_rope_head_dim", default: 64)
        guard rotated % 2 == 0 else { throw config.unsupported("qk_rope_head_dim is \(rotated); it must be even") }
        let rank = !config.names("q_lora_rank") ? 1536 : try config.optionalInt("q_lora_rank")
        guard rank ?? 1 > 0 else { throw config.unsupported("q_lora_rank is \(rank ?? 0)") }
        return LatentAttention.Options(
            heads: heads, plainDim: plain, rotatedDim: rotated, valueDim: try config.size("v_head_dim", default: 128),
            queryRank: rank, keyValueRank: try config.size("kv_lora_rank", default: 512),
            kind: .init(scale: try sharpness(config) / Double(plain + rotated).squareRoot()),
            isInterleaved: try config.flag("rope_interleave", default: true),
            bias: try config.bool("attention_bias", default: false))
    }

    /// A stretched context sharpens the scores by the square of YaRN's factor for `mscale_all_dim`.
    private static func sharpness(_ config: ModelConfig) throws -> Double {
        let rope = try config.rope()
        guard rope.type != "default", let scale = try rope.parameters.optionalDouble("mscale_all_dim"), scale != 0
        else {
            return 1
        }
        let factor = try rope.parameters.double("factor")
        let sharpness = factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1
        guard sharpness.isFinite else { throw config.unsupported("mscale_all_dim \(scale) with factor \(factor)") }
        return sharpness * sharpness
    }

    /// The settings of the sparse layers.
    private struct Mixture {
        let experts: ExpertShape
        let intermediate, sharedExperts, groups, groupsPerToken: Int
        let normalizes: Bool
        let scale: Double

        init(_ config: ModelConfig, _ layers: [Int]) throws {
            let count = try config.size("n_routed_experts", or: "num_local_experts", default: 256)
            var experts = try config.experts(count: count, layers: layers, perToken: 8)
            experts.balancingCoefficient = nil
            self.experts = experts
            intermediate = try config.size("moe_intermediate_size", default: 2048)
            sharedExperts = try config.int("n_shared_experts", default: 1)
            groups = try config.size("n_group", default: 8)
            groupsPerToken = try config.size("topk_group", default: 4)
            guard count % groups == 0, count / groups > 1, groupsPerToken <= groups,
                experts.expertsPerToken <= groupsPerToken * (count / groups)
            else {
                throw config.unsupported(
                    "\(experts.expertsPerToken) of \(count) experts a token, from \(groupsPerToken) of \(groups) groups "
                        + "(n_group, topk_group): groups must be equal, hold 2 experts at least, and hold enough of them"
                )
            }
            guard 0...1024 ~= sharedExperts else { throw config.unsupported("n_shared_experts is \(sharedExperts)") }
            normalizes = try config.flag("norm_topk_prob", default: true)
            scale = try config.multiplier("routed_scaling_factor", default: 2.5)
            let scoring = try config.optionalString("scoring_func") ?? "sigmoid"
            guard scoring == "sigmoid" else {
                throw config.unsupported("scoring_func '\(scoring)'; DeepSeek-V3 routes by sigmoid")
            }
        }

        func layer(
            _ builder: ParameterBuilder, _ name: String, index: Int, hidden: Int, _ activation: Activation
        ) throws -> MixtureOfExperts {
            let router = GroupedSigmoidRouter(
                weight: try builder.parameter(
                    name + ".gate.weight", [experts.experts, hidden], gradient: .stream),
                bias: try builder.buffer(name + ".gate.e_score_correction_bias", [experts.experts], dtype: .float32),
                expertsPerToken: experts.expertsPerToken, groups: groups, groupsPerToken: groupsPerToken,
                normalizes: normalizes, scale: scale)
            var layer = MixtureOfExperts(
                layer: index, router: router,
                experts: try Experts(
                    builder, name + ".experts", count: experts.experts, size: hidden, intermediate: intermediate,
                    activation: activation))
            if sharedExperts > 0 {
                layer.shared = try GatedMLP(
                    builder, name + ".shared_experts", size: hidden, intermediate: intermediate * sharedExperts,
                    activation: activation)
            }
            return layer
        }
    }
}
