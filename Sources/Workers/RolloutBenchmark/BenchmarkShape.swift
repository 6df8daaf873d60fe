public import Checkpoints
public import Models
import OrderedCollections
public import TensorCore

/// The sizes and settings of a known model, for measurements whose weights need no meaning.
public struct BenchmarkShape: Sendable, Hashable {
    public var architecture: String
    public var vocabulary, hidden, layers, heads, keyValueHeads, intermediate: Int
    public var tiedEmbeddings: Bool
    public var ropeTheta: Double
    public var maxPositions: Int

    public init(
        _ architecture: String, vocabulary: Int, hidden: Int, layers: Int, heads: Int, keyValueHeads: Int,
        intermediate: Int, tiedEmbeddings: Bool, ropeTheta: Double, maxPositions: Int
    ) {
        self.architecture = architecture
        self.vocabulary = vocabulary
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.keyValueHeads = keyValueHeads
        self.intermediate = intermediate
        self.tiedEmbeddings = tiedEmbeddings
        self.ropeTheta = ropeTheta
        self.maxPositions = maxPositions
    }

    /// By name, as their makers published them. `tiny` is no one's: it tries a command out in a second.
    public static let known: [String: BenchmarkShape] = [
        "tiny": .init(
            "LlamaForCausalLM", vocabulary: 512, hidden: 64, layers: 2, heads: 4, keyValueHeads: 2, intermediate: 128,
            tiedEmbeddings: true, ropeTheta: 10000, maxPositions: 2048),
        "smollm2-135m": .init(
            "LlamaForCausalLM", vocabulary: 49152, hidden: 576, layers: 30, heads: 9, keyValueHeads: 3,
            intermediate: 1536, tiedEmbeddings: true, ropeTheta: 100_000, maxPositions: 8192),
        "qwen2.5-0.5b": .init(
            "Qwen2ForCausalLM", vocabulary: 151_936, hidden: 896, layers: 24, heads: 14, keyValueHeads: 2,
            intermediate: 4864, tiedEmbeddings: true, ropeTheta: 1e6, maxPositions: 32768),
        "qwen2-1.5b": .init(
            "Qwen2ForCausalLM", vocabulary: 151_936, hidden: 1536, layers: 28, heads: 12, keyValueHeads: 2,
            intermediate: 8960, tiedEmbeddings: true, ropeTheta: 1e6, maxPositions: 32768),
        "llama-3.2-3b": .init(
            "LlamaForCausalLM", vocabulary: 128_256, hidden: 3072, layers: 28, heads: 24, keyValueHeads: 8,
            intermediate: 8192, tiedEmbeddings: true, ropeTheta: 500_000, maxPositions: 131_072),
        "qwen2-7b": .init(
            "Qwen2ForCausalLM", vocabulary: 152_064, hidden: 3584, layers: 28, heads: 28, keyValueHeads: 4,
            intermediate: 18944, tiedEmbeddings: false, ropeTheta: 1e6, maxPositions: 32768),
        "llama-3-8b": .init(
            "LlamaForCausalLM", vocabulary: 128_256, hidden: 4096, layers: 32, heads: 32, keyValueHeads: 8,
            intermediate: 14336, tiedEmbeddings: false, ropeTheta: 500_000, maxPositions: 8192),
    ]

    /// The names, smallest model first.
    public static var names: [String] {
        known.sorted { $0.value.decoder.productWeights < $1.value.decoder.productWeights }.map(\.key)
    }

    var decoder: DecoderSizes {
        DecoderSizes(
            vocabulary: vocabulary, hidden: hidden, layers: layers, queryHeads: heads, keyValueHeads: keyValueHeads,
            headDim: hidden / heads, intermediate: intermediate)
    }

    /// As `transformers` would read it.
    public var config: ModelConfig {
        let settings: JSONObject = [
            "architectures": .array([.string(architecture)]),
            "model_type": .string(architecture.dropLast("ForCausalLM".count).lowercased()),
            "vocab_size": .int(vocabulary),
            "hidden_size": .int(hidden), "num_hidden_layers": .int(layers), "num_attention_heads": .int(heads),
            "num_key_value_heads": .int(keyValueHeads), "intermediate_size": .int(intermediate),
            "hidden_act": .string("silu"), "max_position_embeddings": .int(maxPositions),
            "rms_norm_eps": .double(1e-6), "rope_theta": .double(ropeTheta),
            "tie_word_embeddings": .bool(tiedEmbeddings),
        ]
        return ModelConfig(settings, path: "\(architecture) of random weights")
    }

    /// The model with weights drawn on the device itself (normal, deviation 0.02; norms 1), as the family's own code makes it.
    /// - Parameters:
    ///   - byName: whether each tensor's values depend on its name alone: the same on ranks that hold different ones.
    ///   - parallel: how ranks share it.
    /// - Throws: `TorchError`, such as `outOfMemory`.
    public func model(
        dtype: DType, device: Device, seed: UInt64 = 0, byName: Bool = false,
        parallel: ParallelContext = ParallelContext()
    ) throws -> any CausalLanguageModel {
        guard let make = ModelRegistry.families[architecture] else {
            throw WorkerError(.badSetting, "architecture '\(architecture)' is not known")
        }
        let weights = try RandomWeights(seed: seed, device: device, byName: byName)
        let model = try make(
            config, ParameterBuilder(source: weights, dtype: dtype, device: device, parallel: parallel))
        // What drawing took besides is no part of what an engine may count on.
        try device.emptyCache()
        return model
    }
}
