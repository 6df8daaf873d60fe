/// The merges of a BPE model that comes as scored pieces: every way to put a piece together from two others.
struct PieceMerges {
    private var pairs: [(left: Int32, right: Int32, merge: PairTable.Merge)] = []

    /// Longer pieces than any real one would make the number of splits quadratic.
    static let longestPiece = 512

    mutating func add(_ left: Int32, _ right: Int32, _ merge: PairTable.Merge) { pairs.append((left, right, merge)) }

    var table: PairTable {
        var table = PairTable(capacity: pairs.count)
        for pair in pairs { table.set(pair.left, pair.right, to: pair.merge) }
        return table
    }

    /// Calls with every place between two scalars.
    static func forEachSplit(of text: UnsafeBufferPointer<UInt8>, _ body: (Int) -> Void) {
        guard text.count > 1 else { return }
        for split in 1..<text.count where text[split] & 0xC0 != 0x80 { body(split) }
    }

    /// The highest score first; equal scores have equal ranks, so that among them the leftmost pair merges first.
    static func ranks(of scores: [Float]) -> [UInt32] {
        let order = scores.indices.sorted { scores[$0] > scores[$1] }
        var ranks = [UInt32](repeating: 0, count: scores.count)
        var rank: UInt32 = 0
        for (position, index) in order.enumerated() {
            if position > 0, scores[order[position - 1]] != scores[index] { rank += 1 }
            ranks[index] = rank
        }
        return ranks
    }
}

/// Cuts text in which blanks are marks into words, before each run of marks.
struct BlankSplitter {
    private static let first: UInt8 = 0xE2
    private static let second: UInt8 = 0x96
    private static let third: UInt8 = 0x81

    /// Whether no token spans such a place and the mark itself is known, so that words merge on their own as they do in
    /// the whole text.
    static func canSplit(_ spellings: some Sequence<[UInt8]>, _ vocabulary: Vocabulary) -> Bool {
        guard vocabulary.id(SentencePieceNormalizer.mark) != nil else { return false }
        return spellings.allSatisfy { spelling in
            spelling.withUnsafeBufferPointer { next(in: $0, after: 0) == $0.count }
        }
    }

    @inline(__always)
    private static func isMark(_ text: UnsafeBufferPointer<UInt8>, _ position: Int) -> Bool {
        position >= 0 && position + 2 < text.count && text[position] == first && text[position + 1] == second
            && text[position + 2] == third
    }

    /// Where the next word begins, or the end of the text.
    @inline(__always)
    static func next(in text: UnsafeBufferPointer<UInt8>, after start: Int) -> Int {
        var position = start + 1
        while position + 2 < text.count {
            if text[position] == first, isMark(text, position), !isMark(text, position - 3) { return position }
            position += 1
        }
        return text.count
    }
}
