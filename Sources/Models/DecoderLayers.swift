import TensorCore

/// Norms before attention and feed-forward (Llama and most others); Granite scales what joins the residual stream.
struct PreNormLayer: DecoderLayer {
    private let inputNorm, postNorm: RMSNorm
    private let attention: any SelfAttention
    private let mlp: any FeedForward
    private let residualMultiplier: Double

    init(
        _ builder: ParameterBuilder, _ prefix: String, size: Int, normEps: Double, residualMultiplier: Double = 1,
        attention makeAttention: (String) throws -> any SelfAttention,
        mlp makeMLP: (String) throws -> any FeedForward
    ) throws {
        inputNorm = try RMSNorm(builder, prefix + ".input_layernorm", size: size, eps: normEps)
        attention = try makeAttention(prefix + ".self_attn")
        postNorm = try RMSNorm(builder, prefix + ".post_attention_layernorm", size: size, eps: normEps)
        mlp = try makeMLP(prefix + ".mlp")
        self.residualMultiplier = residualMultiplier
    }

    func callAsFunction(_ stream: inout ResidualStream, _ pass: DecoderPass) throws {
        try stream.add(attention(stream.normed(by: inputNorm), pass), multiplier: residualMultiplier)
        try stream.add(mlp(stream.normed(by: postNorm), pass.last), multiplier: residualMultiplier)
    }
}

/// Norms before and after (Gemma 2 and 3).
struct SandwichNormLayer: DecoderLayer {
    private let inputNorm, postAttentionNorm, preNorm, postNorm: RMSNorm
    private let attention: any SelfAttention
    private let mlp: any FeedForward

    init(
        _ builder: ParameterBuilder, _ prefix: String, size: Int, normEps: Double, convention: RMSNorm.Convention,
        attention makeAttention: (String) throws -> any SelfAttention,
        mlp makeMLP: (String) throws -> any FeedForward
    ) throws {
        func norm(_ name: String) throws -> RMSNorm {
            try RMSNorm(builder, "\(prefix).\(name)", size: size, eps: normEps, convention: convention)
        }
        inputNorm = try norm("input_layernorm")
        attention = try makeAttention(prefix + ".self_attn")
        postAttentionNorm = try norm("post_attention_layernorm")
        preNorm = try norm("pre_feedforward_layernorm")
        mlp = try makeMLP(prefix + ".mlp")
        postNorm = try norm("post_feedforward_layernorm")
    }

    func callAsFunction(_ stream: inout ResidualStream, _ pass: DecoderPass) throws {
        try stream.add(attention(stream.normed(by: inputNorm), pass), norm: postAttentionNorm)
        try stream.add(mlp(stream.normed(by: preNorm), pass), norm: postNorm)
    }
}

/// Norms only after (OLMo 2).
struct PostNormLayer: DecoderLayer {
    private let postAttentionNorm, postNorm: RMSNorm
    private let attention: any SelfAttention
    private let mlp: any FeedForward

    init(
        _ builder: ParameterBuilder, _ prefix: String, size: Int, normEps: Double,
        attention makeAttention: (String) throws -> any SelfAttention,
        mlp makeMLP: (String) throws -> any FeedForward
    ) throws {
        attention = try makeAttention(prefix + ".self_attn")
        postAttentionNorm = try RMSNorm(builder, prefix + ".post_attention_layernorm", size: size, eps: normEps)
        mlp = try makeMLP(prefix + ".mlp")
        postNorm = try RMSNorm(builder, prefix + ".post_feedforward_layernorm", size: size, eps: normEps)
    }

    func callAsFunction(_ stream: inout ResidualStream, _ pass: DecoderPass) throws {
        try stream.add(attention(stream.sum(), pass), norm: postAttentionNorm)
        try stream.add(mlp(stream.sum(), pass), norm: postNorm)
    }
}
