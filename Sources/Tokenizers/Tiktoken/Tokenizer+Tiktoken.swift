extension Tokenizer {
    /// Makes a tokenizer of a rank file: byte-level BPE in which the pair with the lowest rank merges, whatever its parts.
    ///
    /// - Throws: `TokenizerError`, also where a special token's id is a rank.
    public convenience init(tiktoken ranks: TiktokenRanks, family: TiktokenFamily) throws {
        try self.init(TokenizerParts(tiktoken: ranks, family))
    }
}

extension TokenizerParts {
    init(tiktoken ranks: TiktokenRanks, _ family: TiktokenFamily) throws {
        var byBytes = ByteTable(capacity: ranks.tokens.count)
        for token in ranks.tokens {
            token.bytes.withUnsafeBufferPointer { byBytes.set($0, to: Int32(token.rank)) }
        }
        var vocabulary = Vocabulary(capacity: ranks.tokens.count + family.specialTokens.count)
        var merges = PieceMerges()
        var spelling: [UInt8] = []
        for token in ranks.tokens {
            spelling.removeAll(keepingCapacity: true)
            for byte in token.bytes { spelling.append(contentsOf: UTF8Scanner.encode(ByteAlphabet.scalars[Int(byte)])) }
            try spelling.withUnsafeBufferPointer { try vocabulary.add($0, id: token.rank, at: "ranks") }
            // Longer tokens than any real one would make this quadratic.
            guard token.bytes.count > 1, token.bytes.count <= PieceMerges.longestPiece else { continue }
            token.bytes.withUnsafeBufferPointer { text in
                for split in 1..<text.count {
                    guard let left = byBytes.value(for: UnsafeBufferPointer(rebasing: text[..<split])),
                        let right = byBytes.value(for: UnsafeBufferPointer(rebasing: text[split...]))
                    else { continue }
                    merges.add(left, right, PairTable.Merge(rank: UInt32(token.rank), id: Int32(token.rank)))
                }
            }
        }
        var specials: [AddedToken] = []
        for special in family.specialTokens {
            if let taken = vocabulary.spelling(Int32(clamping: special.id)) {
                throw TokenizerError(
                    .invalidModel,
                    "the special token \(special.spelling) has id \(special.id), which is the token '\(String(decoding: taken, as: UTF8.self))'"
                )
            }
            let bytes = Array(special.spelling.utf8)
            try bytes.withUnsafeBufferPointer { try vocabulary.add($0, id: special.id, at: "special tokens") }
            specials.append(AddedToken(content: bytes, id: Int32(special.id), isSpecial: true))
        }
        var bpe = BPEModel(vocabulary: vocabulary, merges: merges.table)
        bpe.ignoresMerges = true
        bpe.prepare()
        self.init(model: .bpe(bpe))
        let pattern = try Pattern(family.pattern)
        preTokenizer = .sequence([
            .split(.expression(pattern), .isolated, invert: false, PatternSplitter(pattern)),
            .byteLevel(addsPrefixSpace: false, splits: nil),
        ])
        if family.normalizesNFC { normalizer = .unicode(composing: true, compatibly: false) }
        decoder = .byteLevel
        addedTokens = specials
    }
}
