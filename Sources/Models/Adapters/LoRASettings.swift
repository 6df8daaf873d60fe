/// What a low-rank adapter is (LoRA, Hu et al. 2021), in PEFT's terms.
public struct LoRASettings: Sendable, Hashable, Codable {
    /// Which linear layers are adapted. A layer is meant by its module's full name or by the end of it, from a dot on.
    public enum Targets: Sendable, Hashable, Codable {
        /// Every linear layer but the output head.
        case allLinear
        case modules([String])
    }

    /// Columns of B, rows of A.
    public var rank: Int
    /// The product is scaled by alpha / rank, or by alpha / √rank with ``isRankStabilized``.
    public var alpha: Double
    /// The share of inputs that the adapter does not see in training.
    public var dropout: Double
    /// Scaling by alpha / √rank (rsLoRA, Kalajdzievski 2023): PEFT's `use_rslora`.
    public var isRankStabilized: Bool
    public var targets: Targets
    /// Modules that are left out although they are targets.
    public var excluded: [String]
    /// Decides the first values of A, and every dropout mask.
    public var seed: UInt64

    public init(
        rank: Int, alpha: Double = 16, dropout: Double = 0, isRankStabilized: Bool = false,
        targets: Targets = .allLinear, excluded: [String] = [], seed: UInt64 = 0
    ) {
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.isRankStabilized = isRankStabilized
        self.targets = targets
        self.excluded = excluded
        self.seed = seed
    }

    public var scale: Double { alpha / (isRankStabilized ? Double(rank).squareRoot() : Double(rank)) }

    /// - Throws: ``ModelError`` with code `adapter` for numbers that mean nothing.
    func check() throws(ModelError) {
        func refuse(_ message: String) -> ModelError { ModelError(.adapter, "LoRA: \(message)") }
        guard rank > 0 else { throw refuse("rank \(rank) is not positive") }
        guard alpha.isFinite, alpha > 0 else { throw refuse("alpha \(alpha) is not a positive number") }
        guard dropout >= 0, dropout < 1 else { throw refuse("dropout \(dropout) is not at least 0 and less than 1") }
        if case .modules(let names) = targets {
            guard !names.isEmpty else { throw refuse("no target module is named") }
            for name in names + excluded { try Self.checkName(name) }
        }
    }

    /// PEFT reads a single text as a regular expression; here only names are read.
    private static func checkName(_ name: String) throws(ModelError) {
        let isName =
            !name.isEmpty
            && name.utf8.allSatisfy { byte in
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: ".")
                    || byte == UInt8(ascii: "_")
            }
        guard isName, name != "all-linear" else {
            throw ModelError(
                .adapter,
                "LoRA: target module '\(name)' is no module's name; list names such as q_proj, or say all-linear alone "
                    + "(regular expressions are not supported)")
        }
    }

    /// Whether `module` is `name` or ends with it, from a dot on.
    static func matches(_ module: String, _ name: String) -> Bool {
        module.utf8.elementsEqual(name.utf8) || module.hasSuffix("." + name)
    }

    func excludes(_ module: String) -> Bool { excluded.contains { Self.matches(module, $0) } }

    func targets(_ module: String) -> Bool {
        switch targets {
        case .allLinear: true
        case .modules(let names): names.contains { Self.matches(module, $0) }
        }
    }
}
