public import TensorCore

/// What a Llama-family decoder needs to know; SmolLM2 is one.
public struct LlamaConfig: Sendable, Hashable {
    public var shape: ModelShape
    public var intermediate: Int
    public var normEps: Double
    public var rotary: RotaryFrequencies
    public var attentionBias, mlpBias, tiedEmbeddings: Bool

    public init(
        shape: ModelShape, intermediate: Int, normEps: Double, rotary: RotaryFrequencies, attentionBias: Bool = false,
        mlpBias: Bool = false, tiedEmbeddings: Bool = false
    ) {
        self.shape = shape
        self.intermediate = intermediate
        self.normEps = normEps
        self.rotary = rotary
        self.attentionBias = attentionBias
        self.mlpBias = mlpBias
        self.tiedEmbeddings = tiedEmbeddings
    }
}

/// The Llama decoder (Touvron et al. 2023; grouped queries as in Llama 2 and 3), equal to `transformers`' LlamaForCausalLM.
public final class LlamaModel: CausalLanguageModel {
    public let config: LlamaConfig
    public let parameters: [Parameter]
    public let output: Projection
    public let projections: [Projection]
    public var usesCheckpointing = false
    public var shape: ModelShape { config.shape }

    private let embedding: Tensor
    private let layers: [LlamaLayer]
    private let norm: RMSNorm

    public init(_ config: LlamaConfig, _ builder: ParameterBuilder) throws {
        self.config = config
        let shape = config.shape
        embedding = try builder.parameter("model.embed_tokens.weight", [shape.vocabulary, shape.hidden])
        layers = try (0..<shape.layers).map { try LlamaLayer(config, builder, index: $0) }
        norm = try RMSNorm(builder, "model.norm", size: shape.hidden, eps: config.normEps)
        output = builder.projection(
            config.tiedEmbeddings
                ? embedding : try builder.parameter("lm_head.weight", [shape.vocabulary, shape.hidden]))
        parameters = try builder.finish()
        projections = builder.projections
    }

    public func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor {
        var x_TC = try embedding.embedding(ids)
        let angles = try config.rotary.angles(positions)
        observe?(0, x_TC)
        for (index, layer) in layers.enumerated() {
            if usesCheckpointing {
                x_TC = try checkpoint([x_TC]) { [try layer($0[0], angles, attention)] }[0]
            } else {
                x_TC = try layer(x_TC, angles, attention)
            }
            if index + 1 < layers.count { observe?(index + 1, x_TC) }
        }
        x_TC = try norm(x_TC)
        observe?(layers.count, x_TC)
        return x_TC
    }
}

private struct LlamaLayer {
    let index: Int
    let inputNorm, postNorm: RMSNorm
    let attention: LlamaAttention
    let mlp: GatedMLP

    init(_ config: LlamaConfig, _ builder: ParameterBuilder, index: Int) throws {
        let prefix = "model.layers.\(index)"
        let hidden = config.shape.hidden
        self.index = index
        inputNorm = try RMSNorm(builder, prefix + ".input_layernorm", size: hidden, eps: config.normEps)
        attention = try LlamaAttention(config, builder, prefix + ".self_attn")
        postNorm = try RMSNorm(builder, prefix + ".post_attention_layernorm", size: hidden, eps: config.normEps)
        mlp = try GatedMLP(
            builder, prefix + ".mlp", size: hidden, intermediate: config.intermediate, bias: config.mlpBias)
    }

    func callAsFunction(
        _ x: Tensor, _ angles: RotaryAngles, _ backend: any AttentionBackend
    ) throws -> Tensor {
        let attended = try x.adding(attention(inputNorm(x), angles, backend, layer: index))
        return try attended.adding(mlp(postNorm(attended)))
    }
}

private struct LlamaAttention {
    let queryKeyValue, output: Projection
    let queryHeads, keyValueHeads, headDim: Int

    init(_ config: LlamaConfig, _ builder: ParameterBuilder, _ name: String) throws {
        let shape = config.shape
        queryHeads = shape.queryHeads
        keyValueHeads = shape.keyValueHeads
        headDim = shape.headDim
        queryKeyValue = try builder.linear(
            name + ".qkv_proj",
            [
                (name + ".q_proj", queryHeads * headDim), (name + ".k_proj", keyValueHeads * headDim),
                (name + ".v_proj", keyValueHeads * headDim),
            ], inputs: shape.hidden, bias: config.attentionBias)
        output = try builder.linear(
            name + ".o_proj", inputs: queryHeads * headDim, outputs: shape.hidden, bias: config.attentionBias)
    }

    func callAsFunction(
        _ x: Tensor, _ angles: RotaryAngles, _ backend: any AttentionBackend, layer: Int
    ) throws -> Tensor {
        let tokens = x.size(0)
        let all_THD = try queryKeyValue(x).reshaped([tokens, queryHeads + 2 * keyValueHeads, headDim])
        let query = try all_THD.narrowed(1, 0..<queryHeads).rotary(cos: angles.cos, sin: angles.sin)
        let key = try all_THD.narrowed(1, queryHeads..<queryHeads + keyValueHeads)
            .rotary(cos: angles.cos, sin: angles.sin)
        let value = try all_THD.narrowed(1, queryHeads + keyValueHeads..<queryHeads + 2 * keyValueHeads)
        let mixed = try backend.attend(
            layer: layer, query: query, key: key, value: value, scale: 1 / Double(headDim).squareRoot())
        return try output(mixed.reshaped([tokens, queryHeads * headDim]))
    }
}
