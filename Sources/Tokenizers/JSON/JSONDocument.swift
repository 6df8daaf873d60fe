/// A JSON text, read once into a flat list of entries that point into its bytes.
///
/// Vocabularies have several hundred thousand strings: nothing is unescaped, converted or allocated until it is asked
/// for, so that a file of 6 MB is read in a few tens of milliseconds.
final class JSONDocument: Sendable {
    enum Kind: UInt8 { case null, no, yes, number, string, escapedString, array, object }

    struct Entry {
        var kind: Kind
        /// Where the value's text begins; for strings after the quote.
        var start: UInt32
        /// Strings and numbers: where the text ends. Containers: the entry after the last descendant.
        var end: UInt32
        /// Containers: how many elements or members.
        var count: UInt32
    }

    let bytes: [UInt8]
    let entries: [Entry]

    /// - Throws: `TokenizerError` (`invalidJSON`) with the byte offset.
    init(_ bytes: [UInt8]) throws {
        guard bytes.count < Int(UInt32.max) else { throw TokenizerError(.invalidJSON, "JSON of more than 4 GiB") }
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw TokenizerError(.invalidJSON, "the text is not valid UTF-8")
        }
        var entries: [Entry] = []
        entries.reserveCapacity(bytes.count / 8)
        try bytes.withUnsafeBufferPointer { text in
            var scanner = JSONScanner(text: text)
            try scanner.scanDocument(into: &entries)
        }
        self.bytes = bytes
        self.entries = entries
    }

    var root: JSONNode { JSONNode(document: self, index: 0) }

    /// The entry after the value at `index`, its descendants skipped.
    @inline(__always) func next(after index: Int) -> Int {
        let entry = entries[index]
        switch entry.kind {
        case .array, .object: return Int(entry.end)
        default: return index + 1
        }
    }

    /// Appends the unescaped UTF-8 of the string at `index`.
    func appendString(at index: Int, to output: inout [UInt8]) throws {
        let entry = entries[index]
        let range = Int(entry.start)..<Int(entry.end)
        guard entry.kind == .escapedString else {
            output.append(contentsOf: bytes[range])
            return
        }
        try bytes.withUnsafeBufferPointer { text in
            try JSONScanner.unescape(UnsafeBufferPointer(rebasing: text[range]), at: range.lowerBound, into: &output)
        }
    }
}

/// The byte-level scanner behind `JSONDocument`. It keeps its own stack: nesting cannot exhaust the thread's.
private struct JSONScanner {
    let text: UnsafeBufferPointer<UInt8>
    var position = 0
    static let maximumDepth = 256

    func failure(_ what: String) -> TokenizerError {
        TokenizerError(.invalidJSON, "\(what) at byte \(position) of \(text.count)")
    }

    @inline(__always) mutating func skipBlanks() {
        while position < text.count {
            let byte = text[position]
            guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return }
            position += 1
        }
    }

    mutating func scanDocument(into entries: inout [JSONDocument.Entry]) throws {
        var open: [Int] = []
        skipBlanks()
        try scanValue(into: &entries, open: &open)
        while let container = open.last {
            skipBlanks()
            guard position < text.count else { throw failure("unexpected end") }
            let isObject = entries[container].kind == .object
            let byte = text[position]
            if byte == (isObject ? 0x7D : 0x5D) {
                guard entries[container].count == 0 || !afterComma else { throw failure("a value is missing") }
                position += 1
                entries[container].end = UInt32(entries.count)
                open.removeLast()
                afterComma = false
                continue
            }
            if entries[container].count > 0 && !afterComma {
                guard byte == 0x2C else { throw failure("expected ',' or a closing bracket") }
                position += 1
                afterComma = true
                continue
            }
            afterComma = false
            entries[container].count += 1
            if isObject {
                guard byte == 0x22 else { throw failure("expected a member's name") }
                try scanString(into: &entries)
                skipBlanks()
                guard position < text.count, text[position] == 0x3A else { throw failure("expected ':'") }
                position += 1
                skipBlanks()
            }
            try scanValue(into: &entries, open: &open)
        }
        skipBlanks()
        guard position == text.count else { throw failure("text after the end of the value") }
    }

    var afterComma = false

    mutating func scanValue(into entries: inout [JSONDocument.Entry], open: inout [Int]) throws {
        guard position < text.count else { throw failure("unexpected end") }
        switch text[position] {
        case 0x22: try scanString(into: &entries)
        case 0x7B, 0x5B:
            guard open.count < Self.maximumDepth else { throw failure("nested deeper than \(Self.maximumDepth)") }
            open.append(entries.count)
            entries.append(
                .init(kind: text[position] == 0x7B ? .object : .array, start: UInt32(position), end: 0, count: 0))
            position += 1
        case 0x74: try scanWord("true", .yes, into: &entries)
        case 0x66: try scanWord("false", .no, into: &entries)
        case 0x6E: try scanWord("null", .null, into: &entries)
        case 0x2D, 0x30...0x39: scanNumber(into: &entries)
        default: throw failure("expected a value")
        }
    }

    mutating func scanWord(_ word: StaticString, _ kind: JSONDocument.Kind, into entries: inout [JSONDocument.Entry])
        throws
    {
        let length = word.utf8CodeUnitCount
        guard position + length <= text.count,
            (0..<length).allSatisfy({ text[position + $0] == word.utf8Start[$0] })
        else { throw failure("expected '\(word)'") }
        entries.append(.init(kind: kind, start: UInt32(position), end: UInt32(position + length), count: 0))
        position += length
    }

    mutating func scanNumber(into entries: inout [JSONDocument.Entry]) {
        let start = position
        while position < text.count {
            switch text[position] {
            case 0x30...0x39, 0x2B, 0x2D, 0x2E, 0x45, 0x65: position += 1
            default:
                entries.append(.init(kind: .number, start: UInt32(start), end: UInt32(position), count: 0))
                return
            }
        }
        entries.append(.init(kind: .number, start: UInt32(start), end: UInt32(position), count: 0))
    }

    @inline(__always) mutating func scanString(into entries: inout [JSONDocument.Entry]) throws {
        position += 1
        let start = position
        var kind = JSONDocument.Kind.string
        while position < text.count {
            let byte = text[position]
            if byte == 0x22 {
                entries.append(.init(kind: kind, start: UInt32(start), end: UInt32(position), count: 0))
                position += 1
                return
            }
            if byte == 0x5C {
                kind = .escapedString
                position += 1
            } else if byte < 0x20 {
                throw failure("a control character in a string")
            }
            position += 1
        }
        throw failure("a string without an end")
    }

    static func unescape(_ text: UnsafeBufferPointer<UInt8>, at base: Int, into output: inout [UInt8]) throws {
        var index = 0
        func failure(_ what: String) -> TokenizerError {
            TokenizerError(.invalidJSON, "\(what) in the string at byte \(base)")
        }
        func unit(at start: Int) throws -> UInt32 {
            guard start + 4 <= text.count else { throw failure("a cut \\u escape") }
            var value: UInt32 = 0
            for offset in 0..<4 {
                guard let digit = Character(UnicodeScalar(text[start + offset])).hexDigitValue else {
                    throw failure("a bad \\u escape")
                }
                value = value << 4 | UInt32(digit)
            }
            return value
        }
        while index < text.count {
            let byte = text[index]
            guard byte == 0x5C else {
                output.append(byte)
                index += 1
                continue
            }
            guard index + 1 < text.count else { throw failure("a cut escape") }
            let escape = text[index + 1]
            index += 2
            switch escape {
            case 0x22, 0x5C, 0x2F: output.append(escape)
            case 0x62: output.append(0x08)
            case 0x66: output.append(0x0C)
            case 0x6E: output.append(0x0A)
            case 0x72: output.append(0x0D)
            case 0x74: output.append(0x09)
            case 0x75:
                var value = try unit(at: index)
                index += 4
                if (0xD800..<0xDC00).contains(value), index + 1 < text.count, text[index] == 0x5C,
                    text[index + 1] == 0x75
                {
                    let low = try unit(at: index + 2)
                    guard (0xDC00..<0xE000).contains(low) else { throw failure("a lone surrogate") }
                    value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
                    index += 6
                }
                guard let scalar = UnicodeScalar(value) else { throw failure("a lone surrogate") }
                output.append(contentsOf: UTF8.encode(scalar)!)
            default: throw failure("an unknown escape")
            }
        }
    }
}
