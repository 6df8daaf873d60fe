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
        let ties = try config.bool("tie_word_embeddings", default: tiesEmbeddings)
        builder.tiesHead = ties
        return try DecoderModel(body(config, builder), builder, tiedEmbeddings: ties, logits: logits(config))
    }
}

/// The model families, by the first entry of a checkpoint's `architectures`. A new family is its file and one line here.
public enum ModelRegistry {
    public typealias Make = @Sendable (ModelConfig, ParameterBuilder) throws -> any CausalLanguageModel

    /// By the part of the architecture's name before `ForCausalLM`.
    static let decoders: [String: any DecoderFamily.Type] = [
        "DeepseekV3": DeepseekV3.self,
        "Gemma2": Gemma2.self,
        "Gemma3": Gemma3.self,
        "Granite": Granite.self,
        "Llama": Llama.self,
        "Mistral": Mistral.self,
        "Mixtral": Mixtral.self,
        "Olmo2": OLMo2.self,
        "Phi3": Phi3.self,
        "Qwen2": Qwen2.self,
        "Qwen3": Qwen3.self,
        "Qwen3Moe": Qwen3Moe.self,
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

    /// The model of a checkpoint, or this rank's part of it, its weights read and converted.
    /// - Throws: ``ModelError`` for a family that is not known, weights that do not fit, or sizes that the ranks cannot share;
    ///   `CheckpointError`.
    public static func load(
        _ source: ModelSource, dtype: DType = .float32, device: Device = .cpu,
        parallel: ParallelContext = ParallelContext()
    ) throws -> any CausalLanguageModel {
        let make = try maker(source.architecture, in: source.path)
        let weights = CheckpointWeights(source)
        return try make(
            source.config, ParameterBuilder(source: weights, dtype: dtype, device: device, parallel: parallel))
    }

    /// The reward or value model of a checkpoint (`…ForSequenceClassification`, `…ForTokenClassification`).
    ///
    /// - Parameter newHead: how to make the head where the checkpoint is a language model, as a critic's or a reward model's is
    ///   at first. Without it such a checkpoint is refused: no head is made silently.
    /// - Throws: ``ModelError``; `CheckpointError`.
    public static func loadScoring(
        _ source: ModelSource, dtype: DType = .float32, device: Device = .cpu, newHead: ScoringModel.NewHead? = nil,
        parallel: ParallelContext = ParallelContext()
    ) throws -> ScoringModel {
        let builder = ParameterBuilder(
            source: CheckpointWeights(source), dtype: dtype, device: device, parallel: parallel)
        if let scorer = try scorer(source.architecture, source.config, builder) { return scorer }
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
                + (isLanguageModel ? "; ask for a new head to make it a value or reward model" : "")
                + "; known are " + scorers.keys.sorted().joined(separator: ", "))
    }

    private static func scorer(
        _ architecture: String, _ config: ModelConfig, _ builder: ParameterBuilder
    ) throws -> ScoringModel? {
        guard let (family, reading) = scorers[architecture] else { return nil }
        return try ScoringModel(
            family.body(config, builder), builder, architecture: architecture, reading: reading,
            labels: config.labelCount(),
            hasBias: reading == .everyToken && config.bool("token_classification_bias", default: true))
    }

    /// Whether a model would load, from its configuration and the names and shapes of its tensors alone: no weight is read and
    /// no memory is taken for one.
    /// - Throws: what ``load(_:dtype:device:)`` or ``loadScoring(_:dtype:device:newHead:)`` would, but for what only reading the
    ///   weights shows.
    public static func check(_ config: ModelConfig, architecture: String, weights: any WeightSource) throws {
        if try scorer(architecture, config, ParameterBuilder(checking: weights)) != nil { return }
        _ = try maker(architecture, in: config.path)(config, ParameterBuilder(checking: weights))
    }

    private static func maker(_ architecture: String, in place: String) throws -> Make {
        if let make = families[architecture] { return make }
        throw ModelError(
            .unknownArchitecture,
            "\(place): architecture '\(architecture)' is not known; known are "
                + families.keys.sorted().joined(separator: ", "))
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
        /// Sizes that the ranks cannot share.
        public static let parallel = Code("parallel")
    }
    public let code: Code
    public let message: String
    /// For `weights`: every tensor that does not fit; the message names the first few.
    public private(set) var problems: [WeightProblem] = []
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

extension ModelError {
    /// The first few of what is wrong with a checkpoint's weights, and how many more there are.
    init(_ problems: [WeightProblem], in place: String) {
        let shown = 8
        let more = problems.count > shown ? "; and \(problems.count - shown) more" : ""
        let list = problems.prefix(shown).map(\.description).joined(separator: "; ")
        self.init(.weights, "\(place): the tensors do not fit the configuration: \(list)\(more)")
        self.problems = problems
    }
}

/// A checkpoint's tensors.
struct CheckpointWeights: WeightSource {
    let source: ModelSource
    init(_ source: ModelSource) { self.source = source }

    var place: String { source.path }
    var tensorNames: [String] { source.tensorNames.filter { !source.config.isOfExtraLayer($0) } }
    func contains(_ name: String) -> Bool { source.contains(name) }

    func problem(_ name: String, shape: [Int]) throws -> WeightProblem? {
        guard source.contains(name) else { return .missing(name) }
        let found = try source.shape(of: name)
        guard found == shape else { return .shape(name, found: found, wanted: shape) }
        if let type = try source.storedType(of: name), !type.isFloatingPoint { return .type(name, found: "\(type)") }
        return nil
    }

    func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
        if let problem = try problem(name, shape: shape) { throw ModelError([problem], in: place) }
        let tensor = try Tensor.empty(shape, dtype: dtype, device: device)
        try load([TensorDestination(name: name, tensor: tensor)])
        return tensor
    }

    func load(_ destinations: [TensorDestination]) throws { try source.load(destinations) }
}

extension ModelConfig {
    /// Whether a tensor is of the layers behind the last one that predict further tokens (DeepSeek-V3 and others), which nothing
    /// here runs.
    public func isOfExtraLayer(_ name: String) -> Bool {
        guard let count = try? optionalInt("num_nextn_predict_layers"), count > 0,
            let layers = try? optionalInt("num_hidden_layers"), layers >= 0, name.hasPrefix("model.layers."),
            let layer = Int(name.dropFirst("model.layers.".count).prefix { $0 != "." })
        else { return false }
        return layer >= layers && layer - layers < count
    }
}
