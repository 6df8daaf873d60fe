extension Tokenizer {
    /// Puts a tokenizer together from a GGUF file's metadata, equal to the one in the model's `tokenizer.json`.
    ///
    /// - Throws: `TokenizerError` (`unsupported`) for a kind of model or a split pattern that is not known.
    public convenience init(gguf: GGUFVocabulary) throws {
        switch gguf.model {
        case "gpt2": try self.init(TokenizerParts(byteLevel: gguf))
        case "llama": try self.init(TokenizerParts(sentencePiece: gguf))
        default:
            throw TokenizerError(
                .unsupported, "tokenizer.ggml.model is '\(gguf.model)'; known are gpt2 (byte-level BPE) and llama")
        }
    }
}

extension TokenizerParts {
    fileprivate init(byteLevel gguf: GGUFVocabulary) throws {
        let split = try GGUFSplit(gguf.pre)
        let vocabulary = try gguf.vocabulary()
        var builder = MergeBuilder(
            vocabulary: vocabulary, capacity: gguf.merges.count, prefixLength: 0, place: "tokenizer.ggml.merges")
        for merge in gguf.merges {
            guard let space = merge.firstIndex(of: 0x20) else {
                throw TokenizerError(
                    .invalidField, "tokenizer.ggml.merges[\(builder.count)]: expected two parts and a blank")
            }
            var text = merge
            text.remove(at: space)
            try builder.add(text, leftCount: space)
        }
        var bpe = BPEModel(vocabulary: vocabulary, merges: builder.table)
        bpe.ignoresMerges = split.ignoresMerges
        bpe.prepare()
        self.init(model: .bpe(bpe))
        if split.normalizesNFC { normalizer = .unicode(composing: true, compatibly: false) }
        preTokenizer = split.preTokenizer
        decoder = .byteLevel
        addedTokens = gguf.addedTokens
        postProcessor = try gguf.template()
    }

    /// SentencePiece's BPE: neighbours merge in the order of the score of what they make.
    fileprivate init(sentencePiece gguf: GGUFVocabulary) throws {
        guard let scores = gguf.scores, scores.count == gguf.tokens.count, scores.allSatisfy(\.isFinite) else {
            throw TokenizerError(
                .invalidField, "tokenizer.ggml.scores: expected \(gguf.tokens.count) finite scores, one a token")
        }
        let vocabulary = try gguf.vocabulary()
        let ranks = PieceMerges.ranks(of: scores)
        var merges = PieceMerges()
        for (id, token) in gguf.tokens.enumerated() where gguf.tokenTypes.isEmpty || gguf.tokenTypes[id] == 1 {
            guard token.count <= PieceMerges.longestPiece else { continue }
            token.withUnsafeBufferPointer { text in
                PieceMerges.forEachSplit(of: text) { split in
                    guard let left = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[..<split])),
                        let right = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[split...]))
                    else { return }
                    merges.add(left, right, PairTable.Merge(rank: ranks[id], id: Int32(id)))
                }
            }
        }
        var bpe = BPEModel(vocabulary: vocabulary, merges: merges.table)
        bpe.hasByteFallback = true
        bpe.fusesUnknown = true
        if let unknown = gguf.unknownID {
            guard gguf.tokens.indices.contains(unknown) else {
                throw TokenizerError(
                    .invalidField, "tokenizer.ggml.unknown_token_id is \(unknown) of \(gguf.tokens.count) tokens")
            }
            bpe.unknownID = Int32(unknown)
        }
        bpe.prepare()
        self.init(model: .bpe(bpe))
        let blank = SentencePieceNormalizer.mark
        let replaces = Normalizer.replace(.literal([0x20]), blank)
        normalizer = gguf.addsSpacePrefix ? .sequence([.prepend(blank), replaces]) : replaces
        decoder = .llama(stripsBlank: gguf.addsSpacePrefix)
        addedTokens = gguf.addedTokens
        postProcessor = try gguf.template()
    }
}

/// How byte-level models of a `tokenizer.ggml.pre` split their text.
struct GGUFSplit {
    var preTokenizer: PreTokenizer
    var normalizesNFC = false
    var ignoresMerges = false

    init(_ pre: String) throws {
        func pattern(_ source: String) throws -> PreTokenizer {
            let pattern = try Pattern(source)
            return .split(.expression(pattern), .isolated, invert: false, PatternSplitter(pattern))
        }
        func bytes(splitting: Bool) throws -> PreTokenizer {
            .byteLevel(addsPrefixSpace: false, splits: splitting ? try PatternSplitter(KnownPattern.gpt2.source) : nil)
        }
        switch pre {
        case "default", "gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "gigachat", "roberta-bpe", "exaone4", "mpt",
            "olmo", "jais", "trillion", "granite-docling":
            preTokenizer = try bytes(splitting: true)
        case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b":
            preTokenizer = .sequence([.digits(individual: true), try bytes(splitting: true)])
        case "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "dbrx",
            "smaug-bpe":
            preTokenizer = .sequence([try pattern(KnownPattern.llama3.source), try bytes(splitting: false)])
            ignoresMerges = pre == "llama3" || pre == "llama-v3" || pre == "llama-bpe" || pre.hasPrefix("falcon")
        case "qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open":
            preTokenizer = .sequence([try pattern(KnownPattern.qwen2.source), try bytes(splitting: false)])
            normalizesNFC = pre == "qwen2" || pre == "deepseek-r1-qwen"
        case "qwen35":
            preTokenizer = .sequence([try pattern(KnownPattern.qwen35.source), try bytes(splitting: false)])
            normalizesNFC = true
        case "deepseek-v3", "hunyuan-dense", "joyai-llm":
            let sources = [Self.digitsByThree, Self.eastAsian, Self.deepSeekWords]
            preTokenizer = .sequence(try sources.map(pattern) + [bytes(splitting: false)])
        case "gpt-4o", "llama4", "kanana2":
            preTokenizer = .sequence([try pattern(Self.gpt4o), try bytes(splitting: false)])
        default:
            throw TokenizerError(
                .unsupported, "tokenizer.ggml.pre is '\(pre)': no split is known for it; use the model's tokenizer.json"
            )
        }
    }

    static let digitsByThree = "\\p{N}{1,3}"
    static let eastAsian = "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+"
    static let deepSeekWords =
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        + "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
    static let gpt4o: String = {
        let upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
        let lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
        let lead = "[^\\r\\n\\p{L}\\p{N}]?"
        let contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        let words = "\(lead)\(upper)*\(lower)+\(contraction)|\(lead)\(upper)+\(lower)*\(contraction)"
        return words + "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    }()
}
