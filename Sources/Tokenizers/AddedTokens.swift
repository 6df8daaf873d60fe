/// A token that is looked for in the text before anything else happens to it.
struct AddedToken: Hashable, Sendable {
    var content: [UInt8]
    var id: Int32
    /// Found only where no word character is on either side.
    var isSingleWord = false
    /// Takes the blanks on its left, or right, with it.
    var stripsLeft = false
    var stripsRight = false
    /// Looked for in the normalized text.
    var isNormalized = false
    /// Whether it is looked for at all: SentencePiece's own control tokens never are.
    var isFound = true
    /// Left out by decoding with `skipSpecialTokens`.
    var isSpecial = false
}

/// Finds the longest of many byte strings at each place, leftmost first.
struct TokenFinder: Sendable {
    private var children: [UInt64: Int32] = [:]
    private var tokenAt: [Int32] = [-1]
    private var isFirstByte = [Bool](repeating: false, count: 256)
    let tokens: [AddedToken]

    init(_ tokens: [AddedToken], spelledAs spellings: [[UInt8]]) {
        self.tokens = tokens
        for (index, spelling) in spellings.enumerated() {
            guard let first = spelling.first else { continue }
            isFirstByte[Int(first)] = true
            var node: Int32 = 0
            for byte in spelling {
                let key = UInt64(UInt32(node)) << 8 | UInt64(byte)
                if let child = children[key] {
                    node = child
                } else {
                    node = Int32(tokenAt.count)
                    children[key] = node
                    tokenAt.append(-1)
                }
            }
            // Of two tokens with one spelling the earlier counts.
            if tokenAt[Int(node)] < 0 { tokenAt[Int(node)] = Int32(index) }
        }
    }

    var isEmpty: Bool { tokenAt.count == 1 }

    private func longest(in text: UnsafeBufferPointer<UInt8>, at start: Int) -> (token: Int, end: Int)? {
        var node: Int32 = 0
        var found: (Int, Int)?
        var position = start
        while position < text.count {
            guard let child = children[UInt64(UInt32(node)) << 8 | UInt64(text[position])] else { break }
            node = child
            position += 1
            if tokenAt[Int(node)] >= 0 { found = (Int(tokenAt[Int(node)]), position) }
        }
        return found
    }

    /// Calls with each stretch of the text and the token it is, nil for the text between tokens.
    func forEachStretch(
        in text: UnsafeBufferPointer<UInt8>, _ body: (_ token: AddedToken?, _ start: Int, _ end: Int) throws -> Void
    ) rethrows {
        guard !isEmpty else {
            if text.count > 0 { try body(nil, 0, text.count) }
            return
        }
        var last = 0
        var position = 0
        while position < text.count {
            guard isFirstByte[Int(text[position])], let match = longest(in: text, at: position) else {
                position += 1
                continue
            }
            let token = tokens[match.token]
            var (start, end) = (position, match.end)
            position = match.end
            if token.isSingleWord, Self.isWord(before: start, in: text) || Self.isWord(at: end, in: text) { continue }
            if token.stripsLeft { start = max(Self.blanks(before: start, in: text), last) }
            if token.stripsRight { end = Self.blanks(after: end, in: text) }
            if last < start { try body(nil, last, start) }
            try body(token, start, end)
            last = end
        }
        if last < text.count { try body(nil, last, text.count) }
    }

    private static func isWord(before position: Int, in text: UnsafeBufferPointer<UInt8>) -> Bool {
        guard position > 0 else { return false }
        let start = UTF8Scanner.start(before: position, in: text)
        return UnicodeProperties.rustWord.contains(UTF8Scanner.scalar(in: text, at: start).value)
    }

    private static func isWord(at position: Int, in text: UnsafeBufferPointer<UInt8>) -> Bool {
        position < text.count
            && UnicodeProperties.rustWord.contains(UTF8Scanner.scalar(in: text, at: position).value)
    }

    private static func blanks(before position: Int, in text: UnsafeBufferPointer<UInt8>) -> Int {
        var result = position
        while result > 0 {
            let start = UTF8Scanner.start(before: result, in: text)
            guard UnicodeProperties.whitespace.contains(UTF8Scanner.scalar(in: text, at: start).value) else { break }
            result = start
        }
        return result
    }

    private static func blanks(after position: Int, in text: UnsafeBufferPointer<UInt8>) -> Int {
        var result = position
        while result < text.count {
            let (scalar, length) = UTF8Scanner.scalar(in: text, at: result)
            guard UnicodeProperties.whitespace.contains(scalar) else { break }
            result += length
        }
        return result
    }
}
