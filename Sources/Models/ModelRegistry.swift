public import Checkpoints
public import TensorCore

/// What a family's file gives: how a checkpoint's settings become layers.
protocol DecoderFamily: SendableMetatype {
    /// Everything of the decoder but its head.
    /// - Throws: `CheckpointError` for missing or mistyped keys, ``ModelError`` for settings that are not done here.
    static func body(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderBody
    /// What stands between the output projection and the logits.
    static func logits(_ config: ModelConfig) throws -> LogitsTransform
    /// Whether the output projection is the embedding where `tie_word_embeddings` is absent.
    static var tiesEmbeddings: Bool { get }
}

extension DecoderFamily {
    static func logits(_ config: ModelConfig) throws -> LogitsTransform { .identity }
    static var tiesEmbeddings: Bool { false }

    static func languageModel(_ config: ModelConfig, _ builder: ParameterBuilder) throws -> DecoderModel {
        try DecoderModel(
            body(config, builder), builder,
            tiedEmbeddings: config.bool("tie_word_embeddings", default: tiesEmbeddings), logits: logits(config))
    }
}

/// The model families, by the first entry of a checkpoint's `architectures`. A new family is its file and one line here.
public enum ModelRegistry {
    public typealias Make = @Sendable (ModelConfig, ParameterBuilder) throws -> any CausalLanguageModel

    /// By the part of the architecture's name before `ForCausalLM`.
    static let decoders: [String: any DecoderFamily.Type] = [
        "Gemma2": Gemma2.self,
        "Gemma3": Gemma3.self,
        "Granite": Granite.self,
        "Llama": Llama.self,
        "Mistral": Mistral.self,
        "Olmo2": OLMo2.self,
        "Phi3": Phi3.self,
        "Qwen2": Qwen2.self,
        "Qwen3": Qwen3.self,
        "SmolLM3": SmolLM3.self,
    ]

    /// Language models by architecture.
    public static let families: [String: Make] = Dictionary(
        uniqueKeysWithValues: decoders.map { name, family in
            let make: Make = { config, builder in try family.languageModel(config, builder) }
            return (name + "ForCausalLM", make)
        })

    /// Scoring models by architecture: reward models that score a whole sequence, value models that score every token.
    static let scorers: [String: (any DecoderFamily.Type, ScoringModel.Reading)] = {
        var all: [String: (any DecoderFamily.Type, ScoringModel.Reading)] = [:]
        for (name, family) in decoders {
            // Gemma 3's language model alone has a name of its own here.
            let stem = name == "Gemma3" ? "Gemma3Text" : name
            all[stem + "ForSequenceClassification"] = (family, .lastToken)
            all[stem + "ForTokenClassification"] = (family, .everyToken)
        }
        return all
    }()

    /// The architectures that ``loadScoring(_:dtype:device:newHead:)`` knows, a language model with a new head apart.
    public static var scoringArchitectures: [String] { scorers.keys.sorted() }

    /// The model of a checkpoint, its weights read and converted.
    /// - Throws: ``ModelError`` for a family that is not known, or weights that do not fit; `CheckpointError`.
    public static func load(
        _ source: ModelSource, dtype: DType = .float32, device: Device = .cpu
    ) throws -> any CausalLanguageModel {
        guard let make = families[source.architecture] else {
            throw ModelError(
                .unknownArchitecture,
                "\(source.path): architecture '\(source.architecture)' is not known; known are "
                    + families.keys.sorted().joined(separator: ", "))
        }
        let weights = CheckpointWeights(source)
        return try make(source.config, ParameterBuilder(source: weights, dtype: dtype, device: device))
    }

    /// The reward or value model of a checkpoint (`…ForSequenceClassification`, `…ForTokenClassification`).
    ///
    /// - Parameter newHead: how to make the head where the checkpoint is a language model, as a critic's is at first. Without it
    ///   such a checkpoint is refused: no head is made silently.
    /// - Throws: ``ModelError``; `CheckpointError`.
    public static func loadScoring(
        _ source: ModelSource, dtype: DType = .float32, device: Device = .cpu, newHead: ScoringModel.NewHead? = nil
    ) throws -> ScoringModel {
        let builder = ParameterBuilder(source: CheckpointWeights(source), dtype: dtype, device: device)
        if let (family, reading) = scorers[source.architecture] {
            return try ScoringModel(
                family.body(source.config, builder), builder, architecture: source.architecture, reading: reading,
                labels: source.config.labelCount(),
                hasBias: reading == .everyToken
                    && source.config.bool("token_classification_bias", default: true))
        }
        let suffix = "ForCausalLM"
        if let newHead, source.architecture.hasSuffix(suffix),
            let family = decoders[String(source.architecture.dropLast(suffix.count))]
        {
            return try ScoringModel(
                family.body(source.config, builder), builder,
                stem: String(source.architecture.dropLast(suffix.count)), newHead: newHead)
        }
        let isLanguageModel = families[source.architecture] != nil
        throw ModelError(
            .unknownArchitecture,
            "\(source.path): architecture '\(source.architecture)' has no score head"
                + (isLanguageModel ? "; ask for a new head to make it a value model" : "")
                + "; known are " + scorers.keys.sorted().joined(separator: ", "))
    }
}

/// A model that cannot be built from what the checkpoint holds.
public struct ModelError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        public static let unknownArchitecture = Code("unknownArchitecture")
        /// The checkpoint's settings ask for something that this family does not do here.
        public static let unsupported = Code("unsupported")
        /// A tensor is missing, left over, or of another shape.
        public static let weights = Code("weights")
        /// An adapter that does not fit the model, or cannot be made on it.
        public static let adapter = Code("adapter")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

/// A checkpoint's tensors, each checked for its shape; in the end none may be left over.
struct CheckpointWeights: WeightSource {
    let source: ModelSource
    init(_ source: ModelSource) { self.source = source }

    func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
        guard source.contains(name) else {
            throw ModelError(.weights, "\(source.path): tensor '\(name)' is missing")
        }
        let found = try source.shape(of: name)
        guard found == shape else {
            throw ModelError(
                .weights, "\(source.path): tensor '\(name)' has shape \(found); the configuration asks for \(shape)")
        }
        return try source.tensor(named: name, dtype: dtype).to(device)
    }

    /// Buffers that old checkpoints carry and the model computes itself.
    private static let ignored = ["rotary_emb.inv_freq", "masked_bias", "attn.bias"]

    func finish(used: Set<String>) throws {
        let left = source.tensorNames.filter { name in
            !used.contains(name) && !Self.ignored.contains { name.hasSuffix($0) }
        }
        // A tied output projection may be stored beside the embedding that it equals.
        let unexpected = left.filter { $0 != "lm_head.weight" || used.contains("lm_head.weight") }
        guard unexpected.isEmpty else {
            let names = unexpected.prefix(5).joined(separator: ", ") + (unexpected.count > 5 ? ", …" : "")
            throw ModelError(
                .weights, "\(source.path): \(unexpected.count) tensors are not part of the architecture: \(names)")
        }
    }
}
