/// The segmentation of highest probability under a unigram model (Kudo, arXiv:1804.10959), found by Viterbi's algorithm.
struct UnigramModel: Sendable {
    private(set) var vocabulary: Vocabulary
    private let scores: [Double]
    let unknownID: Int32?
    private let unknownScore: Double
    private let fallbackIDs: [Int32]
    private let hasByteFallback: Bool
    private let trie: ByteTrie

    /// How much less than the least likely piece an unknown character scores.
    static let unknownPenalty = 10.0

    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        let rows = try fields.array("vocab")
        var pieces: [(spelling: [UInt8], score: Double)] = []
        pieces.reserveCapacity(rows.count)
        for (index, row) in rows.enumerated() {
            let parts = row.elements
            guard parts.count == 2, let spelling = parts[0].stringBytes, let score = parts[1].double else {
                throw TokenizerError(.invalidField, "\(place).vocab[\(index)]: expected [text, score]")
            }
            pieces.append((spelling, score))
        }
        var unknown: Int?
        if node.present("unk_id") != nil { unknown = try fields.count("unk_id") }
        try self.init(
            pieces: pieces, unknownID: unknown, hasByteFallback: try fields.bool("byte_fallback", default: false),
            at: place)
    }

    init(
        pieces: [(spelling: [UInt8], score: Double)], unknownID: Int?, hasByteFallback: Bool, at place: String
    ) throws {
        if let unknownID, unknownID >= pieces.count {
            throw TokenizerError(.invalidField, "\(place).unk_id: \(unknownID) of \(pieces.count) pieces")
        }
        guard pieces.allSatisfy({ $0.score.isFinite }) else {
            throw TokenizerError(.invalidField, "\(place).vocab: a score is not finite")
        }
        var vocabulary = Vocabulary(capacity: pieces.count)
        for (id, piece) in pieces.enumerated() {
            try piece.spelling.withUnsafeBufferPointer { try vocabulary.add($0, id: id, at: "\(place).vocab") }
        }
        self.vocabulary = vocabulary
        self.hasByteFallback = hasByteFallback
        self.unknownID = unknownID.map { Int32($0) }
        scores = pieces.map(\.score)
        unknownScore = (scores.min() ?? 0) - Self.unknownPenalty
        fallbackIDs =
            hasByteFallback ? (0..<256).map { vocabulary.id(BPEModel.fallbackSpelling(UInt8($0))) ?? -1 } : []
        var trie = ByteTrie(capacity: pieces.count * 3)
        for piece in pieces where !piece.spelling.isEmpty {
            trie.insert(piece.spelling, vocabulary.id(piece.spelling)!)
        }
        self.trie = trie
    }

    private struct Node {
        var id: Int32 = -1
        var start: Int32 = -1
        var score = 0.0
    }

    func tokenize(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch) throws {
        var nodes = [Node](repeating: Node(), count: piece.count + 1)
        var start = 0
        while start < piece.count {
            let scoreHere = nodes[start].score
            let length = min(UTF8Scanner.length(of: piece[start]), piece.count - start)
            var hasSingle = false
            func offer(_ end: Int, _ id: Int32, _ score: Double) {
                if nodes[end].start < 0 || score > nodes[end].score {
                    nodes[end] = Node(id: id, start: Int32(start), score: score)
                }
            }
            trie.forEachPrefix(of: piece, from: start) { end, id in
                offer(end, id, scores[Int(id)] + scoreHere)
                if end - start == length { hasSingle = true }
            }
            if !hasSingle {
                guard let unknownID else {
                    throw TokenizerError(.unknownToken, "a character is unknown and the model has no unk_id")
                }
                offer(start + length, unknownID, unknownScore + scoreHere)
            }
            start += length
        }
        // From the end back, neighbouring unknowns joined.
        var stretches: [(start: Int, end: Int)] = []
        var end = piece.count
        var previousIsUnknown = false
        while end > 0 {
            let node = nodes[end]
            let isUnknown = node.id == unknownID
            if isUnknown, previousIsUnknown {
                stretches[stretches.count - 1].start = Int(node.start)
            } else {
                stretches.append((Int(node.start), end))
            }
            previousIsUnknown = isUnknown
            end = Int(node.start)
        }
        for stretch in stretches.reversed() {
            let text = UnsafeBufferPointer(rebasing: piece[stretch.start..<stretch.end])
            let tokenEnd = Int32(stretch.end)
            if let id = vocabulary.table.value(for: text) {
                scratch.tokens.append(ModelToken(id: id, end: tokenEnd))
            } else if hasByteFallback, text.allSatisfy({ fallbackIDs[Int($0)] >= 0 }) {
                // Each byte's token stands for the whole stretch: only the last one moves the end on.
                for byte in text { scratch.tokens.append(ModelToken(id: fallbackIDs[Int(byte)], end: ~tokenEnd)) }
            } else if let unknownID {
                scratch.tokens.append(ModelToken(id: unknownID, end: tokenEnd))
            }
        }
    }
}
