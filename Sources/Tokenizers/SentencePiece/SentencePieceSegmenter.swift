/// SentencePiece's own segmentation of normalized text, by BPE (`bpe_model.cc`) or Unigram (`unigram_model.cc`).
///
/// It differs from what `tokenizers` makes of the same pieces: symbols outside the vocabulary can merge, user-defined
/// symbols are found first, and Unigram's sums are kept in 32 bits, on whose rounding ties depend.
struct SentencePieceSegmenter: Sendable {
    let vocabulary: Vocabulary
    let unknownID: Int32
    private let method: Method
    /// The ids of the bytes, empty without byte fallback.
    private let byteIDs: [Int32]
    private let userDefined: ByteTrie
    /// Whether no piece spans the place before a blank: words can then be segmented one by one.
    let splitsAtBlanks: Bool

    private enum Method: Sendable {
        case bpe(symbols: ByteTable, merges: PairTable)
        case unigram(Unigram)
    }

    private struct Unigram: Sendable {
        var trie: ByteTrie
        var scores: [Float]
        var unknownScore: Float
    }

    init(_ model: SentencePieceModel) throws {
        var vocabulary = Vocabulary(capacity: model.pieces.count)
        var userDefined = ByteTrie()
        for (id, piece) in model.pieces.enumerated() {
            try piece.spelling.withUnsafeBufferPointer { try vocabulary.add($0, id: id, at: "pieces") }
            if piece.type == .userDefined { userDefined.insert(piece.spelling, Int32(id)) }
        }
        self.vocabulary = vocabulary
        self.userDefined = userDefined
        unknownID = Int32(model.unknownID)
        byteIDs =
            model.hasByteFallback ? (0..<256).map { vocabulary.id(BPEModel.fallbackSpelling(UInt8($0))) ?? -1 } : []
        let isBPE = model.kind == .bpe
        method = isBPE ? try Self.bpe(model) : .unigram(Self.unigram(model))
        splitsAtBlanks = isBPE && BlankSplitter.canSplit(model.pieces.lazy.map(\.spelling), vocabulary)
    }

    private static func unigram(_ model: SentencePieceModel) -> Unigram {
        var trie = ByteTrie(capacity: model.pieces.count * 3)
        let normal = model.pieces.filter { $0.type == .normal }.map(\.score)
        for (id, piece) in model.pieces.enumerated() where piece.type == .normal || piece.type == .userDefined {
            trie.insert(piece.spelling, Int32(id))
        }
        return Unigram(
            // User-defined symbols score 0, as the trainer writes it, and so are always taken.
            trie: trie, scores: model.pieces.map(\.score),
            unknownScore: (normal.min() ?? 0) - Float(UnigramModel.unknownPenalty))
    }

    /// Every way to put a piece together from two symbols: pieces, or single characters that are no pieces.
    private static func bpe(_ model: SentencePieceModel) throws -> Method {
        if let unused = model.pieces.firstIndex(where: { $0.type == .unused }) {
            throw TokenizerError(.unsupported, "pieces[\(unused)].type is UNUSED, which BPE is not supported with")
        }
        var symbols = ByteTable(capacity: model.pieces.count)
        for (id, piece) in model.pieces.enumerated() where piece.type == .normal {
            piece.spelling.withUnsafeBufferPointer { symbols.set($0, to: Int32(id)) }
        }
        var next = Int32(model.pieces.count)
        let ranks = PieceMerges.ranks(of: model.pieces.map(\.score))
        var pairs = PieceMerges()
        for (id, piece) in model.pieces.enumerated() where piece.type == .normal {
            guard piece.spelling.count <= PieceMerges.longestPiece else { continue }
            piece.spelling.withUnsafeBufferPointer { text in
                func symbol(_ range: Range<Int>) -> Int32? {
                    let part = UnsafeBufferPointer(rebasing: text[range])
                    if let known = symbols.value(for: part) { return known }
                    guard UTF8Scanner.length(of: part[0]) == part.count else { return nil }
                    symbols.set(part, to: next)
                    next += 1
                    return next - 1
                }
                PieceMerges.forEachSplit(of: text) { split in
                    guard let left = symbol(0..<split), let right = symbol(split..<text.count) else { return }
                    pairs.add(left, right, PairTable.Merge(rank: ranks[id], id: Int32(id)))
                }
            }
        }
        return .bpe(symbols: symbols, merges: pairs.table)
    }

    /// Appends the tokens of normalized text to `scratch.tokens`.
    func tokenize(_ text: UnsafeBufferPointer<UInt8>, _ scratch: EncoderScratch) {
        switch method {
        case .bpe(let symbols, let merges): merge(text, symbols, merges, scratch)
        case .unigram(let unigram): findBestPath(text, unigram, scratch)
        }
    }

    /// Adds a piece; what is unknown becomes bytes, or joins an unknown piece before it.
    @inline(__always)
    private func add(
        _ id: Int32, _ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, _ first: Int, _ scratch: EncoderScratch
    ) {
        let end = Int32(range.upperBound)
        guard id == unknownID else { return scratch.tokens.append(ModelToken(id: id, end: end)) }
        if !byteIDs.isEmpty {
            for byte in text[range] { scratch.tokens.append(ModelToken(id: byteIDs[Int(byte)], end: ~end)) }
        } else if scratch.tokens.count > first, scratch.tokens[scratch.tokens.count - 1].id == unknownID {
            scratch.tokens[scratch.tokens.count - 1].end = end
        } else {
            scratch.tokens.append(ModelToken(id: id, end: end))
        }
    }

    private func merge(
        _ text: UnsafeBufferPointer<UInt8>, _ symbols: ByteTable, _ merges: PairTable, _ scratch: EncoderScratch
    ) {
        scratch.merger.reset()
        var position = 0
        while position < text.count {
            if !userDefined.isEmpty, let match = userDefined.longestPrefix(of: text, from: position) {
                position = match.end
                scratch.merger.append(match.value, end: Int32(position))
                continue
            }
            let end = min(position + UTF8Scanner.length(of: text[position]), text.count)
            let symbol = symbols.value(for: UnsafeBufferPointer(rebasing: text[position..<end]))
            position = end
            scratch.merger.append(symbol ?? .max, end: Int32(end))
        }
        scratch.merger.merge(merges)
        let first = scratch.tokens.count
        var start = 0
        for index in scratch.merger.ids.indices {
            let end = Int(scratch.merger.ends[index])
            var id = scratch.merger.ids[index]
            if id >= vocabulary.idBound {
                id = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[start..<end])) ?? unknownID
            }
            add(id, text, start..<end, first, scratch)
            start = end
        }
    }

    private struct Node {
        var id: Int32 = -1
        var start: Int32 = -1
        var score: Float = 0
    }

    private func findBestPath(_ text: UnsafeBufferPointer<UInt8>, _ unigram: Unigram, _ scratch: EncoderScratch) {
        var nodes = [Node](repeating: Node(), count: text.count + 1)
        nodes.withUnsafeMutableBufferPointer { nodes in
            var start = 0
            while start < text.count {
                let scoreHere = nodes[start].score
                let length = min(UTF8Scanner.length(of: text[start]), text.count - start)
                var hasSingle = false
                func offer(_ end: Int, _ id: Int32, _ score: Float) {
                    if nodes[end].start < 0 || score > nodes[end].score {
                        nodes[end] = Node(id: id, start: Int32(start), score: score)
                    }
                }
                unigram.trie.forEachPrefix(of: text, from: start) { end, id in
                    offer(end, id, unigram.scores[Int(id)] + scoreHere)
                    if end - start == length { hasSingle = true }
                }
                if !hasSingle {
                    offer(start + length, unknownID, unigram.unknownScore + scoreHere)
                }
                start += length
            }
        }
        var path: [Int] = []
        var end = text.count
        while end > 0 {
            path.append(end)
            end = Int(nodes[end].start)
        }
        let first = scratch.tokens.count
        for end in path.reversed() { add(nodes[end].id, text, Int(nodes[end].start)..<end, first, scratch) }
    }
}
