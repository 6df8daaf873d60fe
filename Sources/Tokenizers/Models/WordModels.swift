/// One token a word (`WordLevel`).
struct WordLevelModel: Sendable {
    var vocabulary: Vocabulary
    var unknownID: Int32?
    var unknownToken: String

    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        vocabulary = try Vocabulary(object: node["vocab"], at: "\(place).vocab")
        unknownToken = try fields.optionalString("unk_token") ?? "<unk>"
        unknownID = vocabulary.id(unknownToken.utf8)
    }

    func tokenize(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch) throws {
        guard let id = vocabulary.table.value(for: piece) ?? unknownID else {
            throw TokenizerError(
                .unknownToken,
                "'\(String(decoding: piece, as: UTF8.self))' and the unknown token '\(unknownToken)' are not in the vocabulary"
            )
        }
        scratch.tokens.append(ModelToken(id: id, end: Int32(piece.count)))
    }
}

/// Longest match first within a word (`WordPiece`, as in BERT).
struct WordPieceModel: Sendable {
    var vocabulary: Vocabulary
    var unknownID: Int32?
    var unknownToken: String
    var prefix: [UInt8]
    var maximumScalars: Int
    private let longestSpelling: Int

    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        vocabulary = try Vocabulary(object: node["vocab"], at: "\(place).vocab")
        unknownToken = try fields.optionalString("unk_token") ?? "[UNK]"
        unknownID = vocabulary.id(unknownToken.utf8)
        prefix = Array((try fields.affix("continuing_subword_prefix") ?? "##").utf8)
        maximumScalars = try fields.count("max_input_chars_per_word", default: 100)
        longestSpelling =
            (0..<vocabulary.idBound).lazy.map { [vocabulary] in
                vocabulary.withSpelling($0) { $0.count }
            }.max() ?? 0
    }

    func tokenize(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch) throws {
        let before = scratch.tokens.count
        let isTooLong = piece.reduce(0) { $0 + ($1 & 0xC0 != 0x80 ? 1 : 0) } > maximumScalars
        var start = 0
        while start < piece.count, !isTooLong {
            // Nothing longer than the longest token can be found: words of any length take linear time.
            var end = min(piece.count, start + longestSpelling)
            while end < piece.count, end > start, piece[end] & 0xC0 == 0x80 { end -= 1 }
            var found: Int32?
            while start < end {
                scratch.bytes.removeAll(keepingCapacity: true)
                if start > 0 { scratch.bytes.append(contentsOf: prefix) }
                scratch.bytes.append(contentsOf: piece[start..<end])
                found = vocabulary.id(scratch.bytes)
                if found != nil { break }
                end = UTF8Scanner.start(before: end, in: piece)
            }
            guard let found else { break }
            scratch.tokens.append(ModelToken(id: found, end: Int32(end)))
            start = end
        }
        guard isTooLong || start < piece.count else { return }
        // A word that does not come out even is unknown as a whole.
        guard let unknownID else {
            throw TokenizerError(.unknownToken, "the unknown token '\(unknownToken)' is not in the vocabulary")
        }
        scratch.tokens.removeLast(scratch.tokens.count - before)
        scratch.tokens.append(ModelToken(id: unknownID, end: Int32(piece.count)))
    }
}
