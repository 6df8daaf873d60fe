/// A stretch of the text that will be tokenized on its own.
struct Piece {
    var start: Int
    var end: Int
    /// Whether it begins where the user's text begins.
    var startsText: Bool
}

/// A text and its pieces on their way through the pre-tokenizers.
struct Pieces {
    private(set) var text: AlignedText
    private(set) var list: [Piece]

    init(_ text: AlignedText, startsText: Bool) {
        self.text = text
        list = text.bytes.isEmpty ? [] : [Piece(start: 0, end: text.bytes.count, startsText: startsText)]
        if text.isTracked, !list.isEmpty { list[0].startsText = text.spans[0].start == 0 }
    }

    /// Splits every piece. `find` calls back with the matches in it from left to right.
    mutating func split(
        _ behavior: SplitBehavior, invert: Bool = false,
        find: (UnsafeBufferPointer<UInt8>, (Int, Int) -> Void) throws -> Void
    ) throws {
        var result: [Piece] = []
        result.reserveCapacity(list.count * 2)
        var stretches: [SplitBehavior.Stretch] = []
        try text.bytes.withUnsafeBufferPointer { bytes in
            for piece in list {
                let part = UnsafeBufferPointer(rebasing: bytes[piece.start..<piece.end])
                if behavior == .isolated {
                    // Matches and what is between them are pieces alike.
                    var last = 0
                    try find(part) { start, end in
                        if start > last { add(last, start, of: piece, to: &result) }
                        if end > start { add(start, end, of: piece, to: &result) }
                        last = end
                    }
                    if last < part.count { add(last, part.count, of: piece, to: &result) }
                    continue
                }
                stretches.removeAll(keepingCapacity: true)
                var last = 0
                try find(part) { start, end in
                    if start > last { stretches.append(.init(start: last, end: start, isMatch: invert)) }
                    stretches.append(.init(start: start, end: end, isMatch: !invert))
                    last = end
                }
                if last < part.count { stretches.append(.init(start: last, end: part.count, isMatch: invert)) }
                behavior.join(&stretches)
                for stretch in stretches where stretch.end > stretch.start {
                    add(stretch.start, stretch.end, of: piece, to: &result)
                }
            }
        }
        list = result
    }

    @inline(__always)
    private func add(_ start: Int, _ end: Int, of piece: Piece, to result: inout [Piece]) {
        let position = piece.start + start
        let startsText = text.isTracked ? text.spans[position].start == 0 : piece.startsText && start == 0
        result.append(Piece(start: position, end: piece.start + end, startsText: startsText))
    }

    /// Splits every piece at the scalars of a set, each a match of its own.
    mutating func split(_ behavior: SplitBehavior, at set: ScalarSet) throws {
        try split(behavior) { part, found in
            var position = 0
            while position < part.count {
                let (scalar, length) = UTF8Scanner.scalar(in: part, at: position)
                if set.contains(scalar) { found(position, position + length) }
                position += length
            }
        }
    }

    /// Rewrites every piece's text.
    mutating func rewrite(_ body: (inout AlignedText, _ startsText: Bool) throws -> Void) rethrows {
        var result = AlignedText.empty(like: text)
        var pieces: [Piece] = []
        pieces.reserveCapacity(list.count)
        for piece in list {
            var part = text.slice(piece.start..<piece.end)
            try body(&part, piece.startsText)
            let start = result.bytes.count
            result.append(part, 0..<part.bytes.count)
            guard result.bytes.count > start else { continue }
            pieces.append(Piece(start: start, end: result.bytes.count, startsText: piece.startsText))
        }
        text = result
        list = pieces
    }

    /// Keeps other pieces of the same text.
    mutating func replaceList(_ pieces: [Piece]) { list = pieces }
}

/// What becomes of the matches of a split.
enum SplitBehavior: String, Sendable {
    case removed = "Removed"
    case isolated = "Isolated"
    case mergedWithPrevious = "MergedWithPrevious"
    case mergedWithNext = "MergedWithNext"
    case contiguous = "Contiguous"

    struct Stretch {
        var start: Int
        var end: Int
        var isMatch: Bool
    }

    /// Joins and drops stretches, which cover the piece from left to right.
    func join(_ stretches: inout [Stretch]) {
        switch self {
        case .removed: stretches.removeAll(where: \.isMatch)
        case .isolated: break
        case .mergedWithPrevious:
            stretches = joined(stretches, if: { $0.isMatch && !$1 }) { $0.end = $1.end }
        case .contiguous:
            // Nothing counts as a match before the first stretch; there is nothing to join it to.
            stretches = joined(stretches, if: { $0.isMatch == $1 }) { $0.end = $1.end }
        case .mergedWithNext:
            stretches = joined(stretches.reversed(), if: { $0.isMatch && !$1 }) { $0.start = $1.start }.reversed()
        }
    }

    private func joined(
        _ stretches: [Stretch], if isJoined: (Stretch, _ previousIsMatch: Bool) -> Bool,
        _ extend: (inout Stretch, Stretch) -> Void
    ) -> [Stretch] {
        var result: [Stretch] = []
        var previousIsMatch = false
        for stretch in stretches {
            if isJoined(stretch, previousIsMatch), !result.isEmpty {
                extend(&result[result.count - 1], stretch)
            } else {
                result.append(stretch)
            }
            previousIsMatch = stretch.isMatch
        }
        return result
    }
}
