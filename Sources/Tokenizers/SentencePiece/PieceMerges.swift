/// The merges of a BPE model that comes as scored pieces: every way to put a piece together from two others.
struct PieceMerges {
    private var pairs: [(left: Int32, right: Int32, merge: PairTable.Merge)] = []

    /// Longer pieces than any real one would make the number of splits quadratic.
    static let longestPiece = 512

    init() {}

    private struct Candidate {
        var left: Int32
        var right: Int32
        var id: Int32
        /// Scalars of the two parts.
        var leftCount: Int
        var rightCount: Int
    }

    /// The list of merges that the conversions make: each with a rank of its own, by score, then the longer left part.
    init(ordering pieces: [SentencePieceModel.Piece], in vocabulary: Vocabulary) {
        let ranks = Self.ranks(of: pieces.map(\.score))
        let order = pieces.indices.sorted { (ranks[$0], $0) < (ranks[$1], $1) }
        var group: [Candidate] = []
        var next: UInt32 = 0
        for (position, index) in order.enumerated() {
            let spelling = pieces[index].spelling
            if spelling.count <= Self.longestPiece {
                Self.appendCandidates(of: spelling, id: Int32(index), vocabulary, to: &group)
            }
            if position + 1 < order.count, ranks[order[position + 1]] == ranks[index] { continue }
            if group.count > 1 {
                group.sort { a, b in
                    if a.leftCount != b.leftCount { return a.leftCount > b.leftCount }
                    if a.rightCount != b.rightCount { return a.rightCount > b.rightCount }
                    return (a.id, a.left, a.right) < (b.id, b.left, b.right)
                }
            }
            for merge in group {
                add(merge.left, merge.right, PairTable.Merge(rank: next, id: merge.id))
                next += 1
            }
            group.removeAll(keepingCapacity: true)
        }
    }

    private static func appendCandidates(
        of spelling: [UInt8], id: Int32, _ vocabulary: Vocabulary, to group: inout [Candidate]
    ) {
        spelling.withUnsafeBufferPointer { text in
            let scalars = text.reduce(0) { $0 + ($1 & 0xC0 != 0x80 ? 1 : 0) }
            var leftCount = 0
            forEachSplit(of: text) { split in
                leftCount += 1
                guard let left = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[..<split])),
                    let right = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[split...]))
                else { return }
                group.append(
                    Candidate(left: left, right: right, id: id, leftCount: leftCount, rightCount: scalars - leftCount))
            }
        }
    }

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
