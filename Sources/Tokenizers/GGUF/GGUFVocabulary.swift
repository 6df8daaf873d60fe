/// The tokenizer that a GGUF file's metadata holds, as plain values: the reader of the file fills it in.
public struct GGUFVocabulary: Sendable {
    /// `tokenizer.ggml.model`: "gpt2" for byte-level BPE, "llama" for SentencePiece BPE.
    public var model: String
    /// `tokenizer.ggml.pre`: names the split pattern of byte-level BPE.
    public var pre: String
    /// `tokenizer.ggml.tokens`, as UTF-8.
    public var tokens: [[UInt8]]
    /// `tokenizer.ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; may be empty.
    public var tokenTypes: [Int32]
    /// `tokenizer.ggml.merges`, each two spellings with a blank between.
    public var merges: [[UInt8]]
    /// `tokenizer.ggml.scores`, for SentencePiece models.
    public var scores: [Float]?
    /// `tokenizer.ggml.bos_token_id` and so on.
    public var bosID: Int?
    public var eosID: Int?
    public var padID: Int?
    public var unknownID: Int?
    /// `tokenizer.ggml.add_bos_token`, `…add_eos_token`, `…add_space_prefix`.
    public var addsBOS: Bool
    public var addsEOS: Bool
    public var addsSpacePrefix: Bool

    public init(
        model: String, pre: String = "default", tokens: [[UInt8]], tokenTypes: [Int32] = [], merges: [[UInt8]] = [],
        scores: [Float]? = nil, bosID: Int? = nil, eosID: Int? = nil, padID: Int? = nil, unknownID: Int? = nil,
        addsBOS: Bool = false, addsEOS: Bool = false, addsSpacePrefix: Bool = true
    ) {
        self.model = model
        self.pre = pre
        self.tokens = tokens
        self.tokenTypes = tokenTypes
        self.merges = merges
        self.scores = scores
        self.bosID = bosID
        self.eosID = eosID
        self.padID = padID
        self.unknownID = unknownID
        self.addsBOS = addsBOS
        self.addsEOS = addsEOS
        self.addsSpacePrefix = addsSpacePrefix
    }

    private enum TokenType {
        static let unknown: Int32 = 2
        static let control: Int32 = 3
        static let userDefined: Int32 = 4
    }

    /// Control tokens, the unknown token and user-defined ones are found in the text whole.
    var addedTokens: [AddedToken] {
        zip(tokens, tokenTypes).enumerated().compactMap { id, pair in
            let isSpecial = pair.1 == TokenType.control || pair.1 == TokenType.unknown
            guard isSpecial || pair.1 == TokenType.userDefined, !pair.0.isEmpty else { return nil }
            return AddedToken(content: pair.0, id: Int32(id), isSpecial: isSpecial)
        }
    }

    func vocabulary() throws -> Vocabulary {
        guard !tokens.isEmpty else {
            throw TokenizerError(.invalidField, "tokenizer.ggml.tokens is empty: this GGUF file holds no tokenizer")
        }
        guard tokenTypes.isEmpty || tokenTypes.count == tokens.count else {
            throw TokenizerError(
                .invalidField, "tokenizer.ggml.token_type has \(tokenTypes.count) values for \(tokens.count) tokens")
        }
        guard String(validating: tokens.joined(), as: UTF8.self) != nil else {
            throw TokenizerError(.invalidField, "tokenizer.ggml.tokens: a spelling is not UTF-8")
        }
        var vocabulary = Vocabulary(capacity: tokens.count)
        for (id, token) in tokens.enumerated() {
            try token.withUnsafeBufferPointer { try vocabulary.add($0, id: id, at: "tokenizer.ggml.tokens") }
        }
        return vocabulary
    }

    /// What is put before and after a text when special tokens are asked for.
    func template() throws -> PostProcessor? {
        func token(_ id: Int?, _ isWanted: Bool, _ name: String) throws -> PostProcessor.SpecialToken? {
            guard isWanted, let id else { return nil }
            guard tokens.indices.contains(id) else {
                throw TokenizerError(
                    .invalidField, "tokenizer.ggml.\(name)_token_id is \(id) of \(tokens.count) tokens")
            }
            return .init(id: Int32(id), spelling: String(decoding: tokens[id], as: UTF8.self))
        }
        return .around(start: try token(bosID, addsBOS, "bos"), end: try token(eosID, addsEOS, "eos"))
    }
}
