/// What turns a piece of text into tokens.
enum Model: Sendable {
    case bpe(BPEModel)
    case unigram(UnigramModel)
    case wordPiece(WordPieceModel)
    case wordLevel(WordLevelModel)
    case sentencePiece(SentencePieceSegmenter)

    var vocabulary: Vocabulary {
        switch self {
        case .bpe(let model): model.vocabulary
        case .unigram(let model): model.vocabulary
        case .wordPiece(let model): model.vocabulary
        case .wordLevel(let model): model.vocabulary
        case .sentencePiece(let model): model.vocabulary
        }
    }

    var unknownID: Int32? {
        switch self {
        case .unigram(let model): model.unknownID
        case .sentencePiece(let model): model.unknownID
        default: nil
        }
    }

    /// Unigram and SentencePiece give what they do not know as it is found.
    var unknownIsSpelledAsText: Bool { unknownID != nil }

    /// Appends the tokens of one piece to `scratch.tokens`; those of pieces seen before come from its cache.
    ///
    /// - Parameter isSpelledOut: the piece is in the byte alphabet though the model takes bytes.
    func tokenize(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch, isSpelledOut: Bool = false) throws {
        if isSpelledOut, case .bpe(let model) = self {
            return try model.tokenize(piece, scratch, isSpelledOut: true)
        }
        if case .wordLevel(let model) = self { return try model.tokenize(piece, scratch) }
        guard piece.count > PieceCache.longestKey, splitsAtBlanks else { return try tokenizeWhole(piece, scratch) }
        var start = 0
        while start < piece.count {
            let end = BlankSplitter.next(in: piece, after: start)
            let before = scratch.tokens.count
            try tokenizeWhole(UnsafeBufferPointer(rebasing: piece[start..<end]), scratch)
            if start > 0 {
                for index in before..<scratch.tokens.count { scratch.tokens[index].move(by: Int32(start)) }
            }
            start = end
        }
    }

    /// Whether words can be tokenized on their own though the model is given whole texts.
    private var splitsAtBlanks: Bool {
        switch self {
        case .bpe(let model): model.splitsAtBlanks
        case .sentencePiece(let model): model.splitsAtBlanks
        default: false
        }
    }

    private func tokenizeWhole(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch) throws {
        let isCached = piece.count <= PieceCache.longestKey
        let hash = isCached ? ByteHash.hash(piece) : 0
        if isCached, scratch.cache.append(piece, hash, to: &scratch.tokens) { return }
        let before = scratch.tokens.count
        switch self {
        case .bpe(let model): try model.tokenize(piece, scratch)
        case .unigram(let model): try model.tokenize(piece, scratch)
        case .wordPiece(let model): try model.tokenize(piece, scratch)
        case .sentencePiece(let model): model.tokenize(piece, scratch)
        case .wordLevel: break
        }
        if isCached { scratch.cache.insert(piece, hash, scratch.tokens[before...]) }
    }

    /// Reads the `model` of a `tokenizer.json`; files of old have no `type`, which their fields then tell.
    init(_ node: JSONNode?, at place: String) throws {
        guard let node, node.isObject else { throw TokenizerError(.invalidField, "\(place): expected an object") }
        var type = node["type"]?.string
        if type == nil {
            let isWordPiece = node["max_input_chars_per_word"] != nil
            type =
                node["merges"] != nil
                ? "BPE" : node["vocab"]?.isArray == true ? "Unigram" : isWordPiece ? "WordPiece" : "WordLevel"
        }
        switch type {
        case "BPE": self = .bpe(try BPEModel(node, at: place))
        case "Unigram": self = .unigram(try UnigramModel(node, at: place))
        case "WordPiece": self = .wordPiece(try WordPieceModel(node, at: place))
        case "WordLevel": self = .wordLevel(try WordLevelModel(node, at: place))
        default: throw TokenizerError(.unsupported, "\(place).type: unknown model \(type ?? "")")
        }
    }
}
