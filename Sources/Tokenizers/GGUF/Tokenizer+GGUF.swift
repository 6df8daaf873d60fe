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
