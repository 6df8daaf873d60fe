/// A compiled regular expression, matched by backtracking over the scalars of UTF-8 text.
final class Pattern: Sendable {
    let source: String
    private let steps: [PatternStep]
    private let sets: [ScalarSet]
    private let registerCount: Int

    /// As many steps as Oniguruma allows retries in one match.
    static let stepLimit = 10_000_000

    init(_ source: String) throws {
        self.source = source
        let compiled = try PatternCompiler.compile(PatternParser.parse(source))
        steps = compiled.steps
        sets = compiled.sets
        registerCount = compiled.registers
    }

    /// Calls `body` with every match from left to right, as Oniguruma's iterator finds them: no overlap, and no empty
    /// match right after another match.
    ///
    /// - Throws: `TokenizerError` (`patternTooSlow`), or what `body` throws.
    func forEachMatch(in text: UnsafeBufferPointer<UInt8>, _ body: (Int, Int) throws -> Void) throws {
        var matcher = PatternMatcher(text: text, registerCount: registerCount)
        try steps.withUnsafeBufferPointer { steps in
            try sets.withUnsafeBufferPointer { sets in
                var position = 0
                var lastEnd = -1
                while position <= text.count {
                    matcher.stepsLeft = Self.stepLimit
                    if let end = try matcher.match(steps: steps, sets: sets, at: 0, from: position) {
                        if end > position {
                            try body(position, end)
                            lastEnd = end
                            position = end
                            continue
                        }
                        if end != lastEnd {
                            try body(position, end)
                            lastEnd = end
                        }
                    }
                    guard position < text.count else { return }
                    position += UTF8Scanner.length(of: text[position])
                }
            }
        }
    }
}

/// Decoding of valid UTF-8; anything else is read without going out of bounds.
enum UTF8Scanner {
    @inline(__always) static func length(of lead: UInt8) -> Int {
        lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
    }

    /// The scalar at `position` and how many bytes it takes.
    @inline(__always)
    static func scalar(in text: UnsafeBufferPointer<UInt8>, at position: Int) -> (value: UInt32, length: Int) {
        let lead = text[position]
        if lead < 0x80 { return (UInt32(lead), 1) }
        let length = length(of: lead)
        guard position + length <= text.count else { return (0xFFFD, text.count - position) }
        var value = UInt32(lead) & (0xFF >> UInt32(length + 1))
        for offset in 1..<length { value = value << 6 | UInt32(text[position + offset] & 0x3F) }
        return (value, length)
    }

    /// Where the scalar before `position` begins.
    @inline(__always)
    static func start(before position: Int, in text: UnsafeBufferPointer<UInt8>) -> Int {
        var start = position - 1
        while start > 0, text[start] & 0xC0 == 0x80 { start -= 1 }
        return start
    }
}
