public import Foundation

/// A tokenizer and what the files beside it say.
public struct TokenizerFolder: Sendable {
    /// The file that the tokenizer comes from.
    public enum Kind: String, Hashable, Sendable {
        case json = "tokenizer.json"
        case sentencePiece = "SentencePiece"
        case tiktoken = "tiktoken"
    }

    public let tokenizer: Tokenizer
    public let config: TokenizerConfig
    public let kind: Kind

    /// Reads a model's folder as it comes from the Hub: `tokenizer.json`, else a SentencePiece or tiktoken file, which are
    /// told apart by what is in them.
    ///
    /// - Throws: `TokenizerError`, with the file and the field.
    public init(_ folder: URL) throws {
        var config = try TokenizerConfig(folder: folder)
        let json = folder.appending(path: "tokenizer.json")
        if TokenizerFile.exists(json) {
            kind = .json
            tokenizer = try TokenizerFile.read(json) { bytes in
                var parts = try TokenizerParts(JSONDocument(bytes).root)
                config.add(to: &parts)
                return try Tokenizer(parts)
            }
            self.config = config
            return
        }
        guard let file = try Self.vocabularyFile(in: folder) else {
            throw TokenizerError(
                .unreadable,
                "\(folder.path): no tokenizer: looked for tokenizer.json, tokenizer.model, spiece.model and *.tiktoken")
        }
        (tokenizer, kind) = try TokenizerFile.read(file) { bytes in
            if TiktokenRanks.looksLikeRanks(bytes) {
                let parts = try Self.parts(TiktokenRanks(bytes: bytes), file.lastPathComponent, config)
                return (try Self.tokenizer(parts, config, addsBOS: false, addsEOS: false), .tiktoken)
            }
            let model = try SentencePieceModel(bytes: bytes)
            config.fill(from: model)
            let convention = try config.convention(for: model)
            let parts = try TokenizerParts(model, convention)
            let tokenizer = try Self.tokenizer(
                parts, config, addsBOS: convention.addsBOS, addsEOS: convention.addsEOS)
            return (tokenizer, .sentencePiece)
        }
        self.config = config
    }

    /// Every id that ends a turn.
    public var endOfTurnIDs: [Int32] { config.endOfTurnIDs(in: tokenizer) }

    private static func vocabularyFile(in folder: URL) throws -> URL? {
        for name in ["tokenizer.model", "spiece.model", "tiktoken.model"] {
            let file = folder.appending(path: name)
            if TokenizerFile.exists(file) { return file }
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        let ranks = names.filter { $0.hasSuffix(".tiktoken") }.sorted()
        guard ranks.count <= 1 else {
            throw TokenizerError(
                .unsupported,
                "\(folder.path): several rank files (\(ranks.joined(separator: ", "))): keep the model's one")
        }
        return ranks.first.map { folder.appending(path: $0) }
    }

    /// Adds the configured tokens and, as there is no file that has a post-processor, what is put around a text.
    private static func tokenizer(
        _ parts: TokenizerParts, _ config: TokenizerConfig, addsBOS: Bool, addsEOS: Bool
    ) throws -> Tokenizer {
        var parts = parts
        config.add(to: &parts)
        let plain = try Tokenizer(parts)
        func token(_ text: String?, _ isWanted: Bool) -> PostProcessor.SpecialToken? {
            guard isWanted, let text, let id = plain.id(for: text) else { return nil }
            return PostProcessor.SpecialToken(id: id, spelling: text)
        }
        let around = PostProcessor.around(
            start: token(config.bosToken, config.addsBOS ?? addsBOS),
            end: token(config.eosToken, config.addsEOS ?? addsEOS))
        guard let around else { return plain }
        parts.postProcessor = around
        return try Tokenizer(parts)
    }

    /// More special tokens than any model has.
    static let maximumGap = 1 << 16

    /// Ids behind the ranks are the special tokens of `added_tokens_decoder`, gaps filled, else the family's own.
    private static func parts(
        _ ranks: TiktokenRanks, _ fileName: String, _ config: TokenizerConfig
    ) throws -> TokenizerParts {
        let known = TiktokenFamily.known(
            tokenizerClass: config.tokenizerClass, fileName: fileName, ranks: ranks)
        guard var family = known else {
            throw TokenizerError(
                .unsupported,
                "\(ranks.tokens.count) ranks and tokenizer_class \(config.tokenizerClass ?? "(none)"): the pattern to split by is not known for these; give the folder a tokenizer.json"
            )
        }
        let bound = ranks.idBound
        var spellings: [Int: String] = [:]
        for token in config.addedTokens where token.id >= bound { spellings[token.id] = token.content }
        if let last = spellings.keys.max() {
            guard last - bound < maximumGap else {
                throw TokenizerError(
                    .invalidField,
                    "added_tokens_decoder: id \(last) lies far behind the \(ranks.tokens.count) ranks, which end at \(bound - 1)"
                )
            }
            family.specialTokens = (bound...last).map { (spellings[$0] ?? "<|reserved_token_\($0)|>", $0) }
        }
        return try TokenizerParts(tiktoken: ranks, family)
    }
}

extension TokenizerConfig {
    /// Special tokens that no file names are those of the model's own control pieces.
    mutating func fill(from model: SentencePieceModel) {
        func spelling(_ id: Int) -> String? {
            model.pieces.indices.contains(id) ? String(decoding: model.pieces[id].spelling, as: UTF8.self) : nil
        }
        bosToken = bosToken ?? spelling(model.bosID)
        eosToken = eosToken ?? spelling(model.eosID)
        padToken = padToken ?? spelling(model.padID)
        unknownToken = unknownToken ?? spelling(model.unknownID)
    }

    /// Which of transformers' conversions a `tokenizer.model` goes through.
    func convention(for model: SentencePieceModel) throws -> SentencePieceConvention {
        var name = tokenizerClass
        if name == nil {
            switch modelType ?? "" {
            case let type where type.hasPrefix("gemma"): name = "GemmaTokenizer"
            case "t5", "mt5": name = "T5Tokenizer"
            default: break
            }
        }
        switch name {
        case "LlamaTokenizer", "CodeLlamaTokenizer", "MistralTokenizer":
            return .llama(isLegacy: isLegacy ?? true, addsPrefixSpace: addsPrefixSpace)
        case "GemmaTokenizer": return .gemma
        case "T5Tokenizer":
            guard (extraIDs ?? 0) <= TokenizerFolder.maximumGap else {
                throw TokenizerError(.invalidField, "extra_ids is \(extraIDs ?? 0), more than any model has")
            }
            return .t5(extraIDs: extraIDs ?? 100)
        case let name? where Self.rearrangesPieces.contains(name):
            throw TokenizerError(
                .unsupported,
                "tokenizer_class \(name) gives the pieces other ids than the model file has; save the folder with a tokenizer.json"
            )
        default:
            // Remote code usually calls the library; these conversions come closest to it.
            return model.kind == .bpe ? .llama(addsPrefixSpace: addsPrefixSpace ?? model.addsDummyPrefix) : .general
        }
    }

    private static let rearrangesPieces: Set<String> = [
        "BarthezTokenizer", "BartphoTokenizer", "CamembertTokenizer", "DebertaV2Tokenizer", "FNetTokenizer",
        "M2M100Tokenizer", "MBart50Tokenizer", "MBartTokenizer", "MarianTokenizer", "NllbTokenizer", "PLBartTokenizer",
        "PegasusTokenizer", "RemBertTokenizer", "SeamlessM4TTokenizer", "Speech2TextTokenizer", "XGLMTokenizer",
        "XLMRobertaTokenizer", "XLMRobertaXLTokenizer", "XLNetTokenizer",
    ]
}
