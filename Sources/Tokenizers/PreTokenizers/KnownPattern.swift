/// The patterns that most models split by. Each has a scanner written by hand, several times as fast as the general
/// matcher and tested against it.
enum KnownPattern: String, CaseIterable, Sendable {
    case gpt2
    case llama3
    case qwen2
    case qwen35

    var source: String {
        let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        let blanks = "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        switch self {
        case .gpt2: return "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
        case .llama3, .qwen2:
            let digits = self == .llama3 ? "|\\p{N}{1,3}" : "|\\p{N}"
            let rest = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" + blanks
            return contractions + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+" + digits + rest
        case .qwen35:
            let rest = "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" + blanks
            return contractions + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}" + rest
        }
    }

    init?(source: String) {
        let match = Self.allCases.first { $0.source.utf8.elementsEqual(source.utf8) }
        guard let match else { return nil }
        self = match
    }
}

/// Finds the matches of a pattern, by hand where it is a known one.
struct PatternSplitter: Sendable {
    let pattern: Pattern
    let known: KnownPattern?

    init(_ pattern: Pattern) {
        self.pattern = pattern
        known = KnownPattern(source: pattern.source)
    }

    init(_ source: String) throws { self.init(try Pattern(source)) }

    func forEachMatch(in text: UnsafeBufferPointer<UInt8>, _ body: (Int, Int) throws -> Void) throws {
        guard let known else { return try pattern.forEachMatch(in: text, body) }
        let scanner = KnownPatternScanner(known, text)
        var position = 0
        // Every position begins a match of these patterns.
        while position < text.count {
            let end = scanner.end(of: position)
            try body(position, end)
            position = end
        }
    }
}
