public import Checkpoints
import TensorCore

/// What a Llama-family decoder needs to know; SmolLM2 is one.
public struct LlamaConfig: Sendable, Hashable {
    public var shape: ModelShape
    public var intermediate: Int
    public var normEps: Double
    public var rotary: RotaryFrequencies
    public var attentionBias, mlpBias, tiedEmbeddings: Bool
    var activation = Activation.silu

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

    /// Reads `config.json` as `transformers` does.
    /// - Throws: `CheckpointError` for missing or mistyped keys, ``ModelError`` for settings that are not supported.
    public init(_ config: ModelConfig) throws {
        let shape = try config.decoderShape(maxPositions: 2048)
        self.init(
            shape: shape, intermediate: try config.size("intermediate_size"), normEps: try config.normEps(),
            rotary: try config.rotary(shape), attentionBias: try config.bool("attention_bias", default: false),
            mlpBias: try config.bool("mlp_bias", default: false),
            tiedEmbeddings: try config.bool("tie_word_embeddings", default: false))
        activation = try config.activation()
    }

    func body(_ builder: ParameterBuilder) throws -> DecoderBody {
        let outline = DecoderOutline(shape: shape, normEps: normEps, rotaries: [rotary])
        return try DecoderBody(outline, builder) { index, prefix in
            try PreNormLayer(builder, prefix, size: shape.hidden, normEps: normEps) { name in
                try GroupedQueryAttention(
                    builder, name, layer: index, shape: shape,
                    .init(
                        kind: AttentionKind(scale: shape.attentionScale), inputBias: attentionBias,
                        outputBias: attentionBias))
            } mlp: { name in
                try GatedMLP(
                    builder, name, size: shape.hidden, intermediate: intermediate, bias: mlpBias,
                    activation: activation)
            }
        }
    }
}

/// The Llama decoder (Touvron et al. 2023; grouped queries as in Llama 2 and 3), equal to `transformers`' LlamaForCausalLM.
enum Llama: DecoderFamily {
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody {
        try LlamaConfig(config).body(builder)
    }
}

public typealias LlamaModel = DecoderModel

extension DecoderModel {
    /// A Llama from settings rather than from a checkpoint.
    public convenience init(_ config: LlamaConfig, _ builder: ParameterBuilder) throws {
        builder.tiesHead = config.tiedEmbeddings
        try self.init(config.body(builder), builder, tiedEmbeddings: config.tiedEmbeddings)
    }
}
