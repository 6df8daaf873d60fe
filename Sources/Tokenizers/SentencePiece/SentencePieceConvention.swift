/// What is made of the pieces of a `tokenizer.model`: SentencePiece's own behaviour, or that of one of the conversions by
/// which `transformers` makes a `tokenizers` pipeline of it. They disagree on blanks and on special tokens in the text.
public struct SentencePieceConvention: Hashable, Sendable {
    enum Kind: Hashable, Sendable {
        case library
        case llama(isLegacy: Bool)
        case gemma
        case t5(extraIDs: Int)
        case general
    }

    let kind: Kind
    /// A blank before the text; nil for what the kind does.
    let addsPrefixSpace: Bool?

    /// What the `sentencepiece` library gives: control tokens are never found in a text.
    public static let library = SentencePieceConvention(kind: .library, addsPrefixSpace: nil)

    /// `LlamaConverter`: the text is not cleaned, a mark is put before each stretch of it.
    ///
    /// - Parameter isLegacy: as SentencePiece has it; else a mark is put only before a text that begins with none.
    public static func llama(isLegacy: Bool = true, addsPrefixSpace: Bool? = nil) -> SentencePieceConvention {
        SentencePieceConvention(kind: .llama(isLegacy: isLegacy), addsPrefixSpace: addsPrefixSpace)
    }

    /// `GemmaConverter`: nothing is put before the text.
    public static let gemma = SentencePieceConvention(kind: .gemma, addsPrefixSpace: false)

    /// `T5Converter`: the general conversion, and `<extra_id_N>` behind the vocabulary.
    public static func t5(extraIDs: Int = 100) -> SentencePieceConvention {
        SentencePieceConvention(kind: .t5(extraIDs: extraIDs), addsPrefixSpace: nil)
    }

    /// `SpmConverter`: the charsmap, runs of blanks made one, words on their own.
    public static let general = SentencePieceConvention(kind: .general, addsPrefixSpace: nil)

    /// Whether texts begin with BOS, and end with EOS, where no file says so.
    var addsBOS: Bool {
        switch kind {
        case .llama, .gemma: true
        case .library, .t5, .general: false
        }
    }
    var addsEOS: Bool {
        if case .t5 = kind { return true }
        return false
    }
}

extension Tokenizer {
    /// Makes a tokenizer of a SentencePiece model.
    ///
    /// - Parameter addsBOS, addsEOS: whether `addSpecialTokens` puts these in; nil for what the convention does.
    /// - Throws: `TokenizerError`.
    public convenience init(
        sentencePiece model: SentencePieceModel, as convention: SentencePieceConvention = .library,
        addsBOS: Bool? = nil, addsEOS: Bool? = nil
    ) throws {
        var parts = try TokenizerParts(model, convention)
        func token(_ id: Int) -> PostProcessor.SpecialToken? {
            guard model.pieces.indices.contains(id) else { return nil }
            let spelling = String(decoding: model.pieces[id].spelling, as: UTF8.self)
            return PostProcessor.SpecialToken(id: Int32(id), spelling: spelling)
        }
        parts.postProcessor = .around(
            start: addsBOS ?? convention.addsBOS ? token(model.bosID) : nil,
            end: addsEOS ?? convention.addsEOS ? token(model.eosID) : nil)
        try self.init(parts)
    }
}

extension PostProcessor {
    /// Special tokens before and after each text; nil if there are none.
    static func around(start: SpecialToken?, end: SpecialToken?) -> PostProcessor? {
        if start == nil, end == nil { return nil }
        func piece(_ token: SpecialToken?, _ type: Int32) -> [TemplatePiece] {
            guard let token else { return [] }
            return [TemplatePiece(ids: [token.id], tokens: [token.spelling], isSecondText: false, typeID: type)]
        }
        let first = piece(start, 0) + [TemplatePiece(ids: nil, isSecondText: false, typeID: 0)] + piece(end, 0)
        let second = piece(start, 1) + [TemplatePiece(ids: nil, isSecondText: true, typeID: 1)] + piece(end, 1)
        return .template(single: first, pair: first + second)
    }
}

extension TokenizerParts {
    init(_ model: SentencePieceModel, _ convention: SentencePieceConvention) throws {
        let mark = SentencePieceNormalizer.mark
        switch convention.kind {
        case .library:
            self.init(model: .sentencePiece(try SentencePieceSegmenter(model)))
            normalizer = .sentencePiece(try SentencePieceNormalizer(model))
            decoder = .sentencePiece(SentencePieceDecoder(model))
        case .llama(let isLegacy):
            self.init(model: try Self.converted(model, hasByteFallback: true))
            let addsPrefixSpace = convention.addsPrefixSpace ?? true
            if isLegacy {
                let replaces = Normalizer.replace(.literal([0x20]), mark)
                normalizer = addsPrefixSpace ? .sequence([.prepend(mark), replaces]) : replaces
            } else {
                let scheme: Metaspace.Scheme = addsPrefixSpace ? .first : .never
                preTokenizer = .metaspace(Metaspace(replacement: mark, scheme: scheme, splits: false))
            }
            decoder = Decoder.llama(stripsBlank: addsPrefixSpace)
        case .gemma:
            self.init(model: try Self.converted(model, hasByteFallback: true))
            normalizer = .replace(.literal([0x20]), mark)
            decoder = Decoder.llama(stripsBlank: false)
        case .t5(let extraIDs):
            var model = model
            model.pieces += (0..<max(0, extraIDs)).reversed().map {
                .init(spelling: Array("<extra_id_\($0)>".utf8), score: 0, type: .control)
            }
            try self.init(model, .general)
            return
        case .general:
            self.init(model: try Self.converted(model, hasByteFallback: model.hasByteFallback))
            let cleaning: [Normalizer] = [
                .strip(left: false, right: true), .replace(.expression(try Pattern(" {2,}")), mark),
            ]
            var charsmap: [Normalizer] = []
            if !model.charsmap.isEmpty {
                let map = try PrecompiledMap(bytes: model.charsmap, at: "normalizer_spec.precompiled_charsmap")
                charsmap = [.precompiled(map)]
            }
            normalizer = .sequence(charsmap + cleaning)
            let scheme: Metaspace.Scheme = convention.addsPrefixSpace ?? true ? .always : .never
            let metaspace = Metaspace(replacement: mark, scheme: scheme, splits: true)
            preTokenizer = .metaspace(metaspace)
            decoder =
                model.hasByteFallback ? Decoder.llama(stripsBlank: scheme == .always) : .metaspace(metaspace)
        }
        let isFound = convention.kind != .library
        addedTokens = model.pieces.enumerated().compactMap { id, piece in
            guard piece.type == .control || piece.type == .userDefined && isFound else { return nil }
            var token = AddedToken(content: piece.spelling, id: Int32(id))
            token.isSpecial = piece.type == .control
            token.isFound = isFound
            return token
        }
    }

    /// The pieces as a model of `tokenizers`, which does not go by their types.
    private static func converted(_ model: SentencePieceModel, hasByteFallback: Bool) throws -> Model {
        guard model.kind == .bpe else {
            return .unigram(
                try UnigramModel(
                    pieces: model.pieces.map { ($0.spelling, Double($0.score)) }, unknownID: model.unknownID,
                    hasByteFallback: hasByteFallback, at: "pieces"))
        }
        var vocabulary = Vocabulary(capacity: model.pieces.count)
        for (id, piece) in model.pieces.enumerated() {
            try piece.spelling.withUnsafeBufferPointer { try vocabulary.add($0, id: id, at: "pieces") }
        }
        let merges = PieceMerges(ordering: model.pieces, in: vocabulary)
        var bpe = BPEModel(vocabulary: vocabulary, merges: merges.table)
        bpe.hasByteFallback = hasByteFallback
        bpe.fusesUnknown = true
        bpe.unknownID = Int32(model.unknownID)
        bpe.prepare()
        return .bpe(bpe)
    }
}

extension Decoder {
    /// Marks become blanks, bytes characters, and the blank that was put before the text goes.
    static func llama(stripsBlank: Bool) -> Decoder {
        let strips: [Decoder] = stripsBlank ? [.strip(" ", start: 1, stop: 0)] : []
        return .sequence([.replace(.literal(SentencePieceNormalizer.mark), [0x20]), .byteFallback, .fuse] + strips)
    }
}
