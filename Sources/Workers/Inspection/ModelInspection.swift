public import Checkpoints
public import TensorCore

/// What is good or bad about a model folder, one line each.
public struct InspectionFinding: Sendable, Hashable {
    public enum Severity: String, Sendable, Hashable, Comparable, CaseIterable {
        /// The model does not load or does not run.
        case error
        /// It runs, and something may surprise.
        case warning
        /// Worth knowing.
        case info

        public static func < (a: Severity, b: Severity) -> Bool { a.rank < b.rank }
        private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    }

    public let severity: Severity
    /// What it is about: "weights", "config", "tokenizer", "template", "tokens", "memory".
    public let topic: String
    public let message: String

    public init(_ severity: Severity, _ topic: String, _ message: String) {
        self.severity = severity
        self.topic = topic
        self.message = message
    }
}

/// What a model folder or a GGUF file is, found out from headers and small files alone.
public struct ModelInspection: Sendable {
    /// How the weights are stored.
    public enum Storage: String, Sendable {
        case huggingFace = "Hugging Face folder", gguf = "GGUF file", unknown
    }

    /// The shape of the decoder, where `config.json` says it.
    public struct Shape: Sendable, Hashable {
        public var layers, hidden, queryHeads, keyValueHeads, headDim, intermediate, vocabulary: Int
        /// Experts and how many of them a token meets; 0 for a dense model.
        public var experts = 0
        public var expertsPerToken = 0
        /// Elements that the cache keeps of a token in a layer, keys and values together.
        public var cacheWidth: Int
    }

    public struct Weights: Sendable {
        public var files = 0
        /// Of the tensors, without headers.
        public var bytes = 0
        public var tensors = 0
        public var parts = ParameterParts()
        /// Bytes by stored type, largest first.
        public var types: [(name: String, bytes: Int)] = []
    }

    public struct Text: Sendable {
        /// "BPE", "Unigram" …; nil when there is no tokenizer.
        public var kind: String?
        public var vocabulary: Int?
        /// Role, text and id.
        public var specialTokens: [(role: String, text: String, id: Int?)] = []
        public var endOfTurn: [(id: Int, text: String)] = []
        public var hasTemplate = false
        /// nil without a template that compiles.
        public var templateMarksGeneration: Bool?
        public var templateTakesTools: Bool?
        public var templateTakesThinking: Bool?
        public var templateNames: [String] = []
    }

    public let path: String
    public var storage = Storage.unknown
    public var architecture: String?
    public var modelType: String?
    public var isTied: Bool?
    public var shape: Shape?
    public var contextLength: Int?
    /// Such as "llama3, base 500000, factor 8".
    public var rope: String?
    /// Such as "28 full" or "5 sliding (512) : 1 full".
    public var attention: String?
    public var weights = Weights()
    public var text = Text()
    public var memory: [MemoryEstimate] = []
    public private(set) var findings: [InspectionFinding] = []

    init(path: String) { self.path = path }

    /// Whether nothing was found that keeps the model from running.
    public var isUsable: Bool { !findings.contains { $0.severity == .error } }

    mutating func add(_ severity: InspectionFinding.Severity, _ topic: String, _ message: String) {
        let finding = InspectionFinding(severity, topic, message)
        if !findings.contains(finding) { findings.append(finding) }
    }

    /// Runs one part of the inspection; what it throws is a finding, and the other parts go on.
    mutating func attempt(_ topic: String, _ body: (inout ModelInspection) throws -> Void) {
        do { try body(&self) } catch { add(.error, topic, "\(error)") }
    }
}

/// The number of parameters by what they do.
public struct ParameterParts: Sendable, Hashable {
    public enum Part: String, Sendable, Hashable, CaseIterable {
        case embedding, attention, mlp, experts, router, norms, head, other
    }

    public private(set) var counts: [Part: Int] = [:]

    public init() {}

    public var total: Int { counts.values.reduce(0, +) }
    public subscript(part: Part) -> Int { counts[part] ?? 0 }

    mutating func add(_ name: String, _ count: Int) { counts[Self.part(of: name), default: 0] += count }

    /// The part that a tensor belongs to by its name, of Hugging Face or of llama.cpp.
    static func part(of name: String) -> Part {
        func has(_ texts: String...) -> Bool { texts.contains { name.contains($0) } }
        // Norms first: those of queries and keys lie inside of attention.
        if has("norm", ".ln_", "layer_norm") { return .norms }
        if has("embed_tokens", "token_embd", "wte.", "word_embeddings") { return .embedding }
        if has("lm_head", "score.") || name.hasPrefix("output.") { return .head }
        if has("experts.", "shared_expert.", "_exps.", "_shexp.") { return .experts }
        if has("router", "mlp.gate.", "block_sparse_moe.gate.", "shared_expert_gate", "ffn_gate_inp") { return .router }
        if has("attn", "attention") { return .attention }
        if has("mlp", "feed_forward", "ffn") { return .mlp }
        return .other
    }
}
