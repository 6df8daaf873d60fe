/// Cuts a template into tokens, as Jinja2 does with `trim_blocks` and `lstrip_blocks` on and
/// `keep_trailing_newline` off.
struct Lexer {
    /// UTF-8 with `\r\n` and `\r` read as `\n`, and one newline at the end gone.
    let source: [UInt8]
    private var position = 0
    private(set) var tokens: [Token] = []
    /// Closing brackets that are due; a tag's end is only looked for outside brackets.
    private var brackets: [Token.Symbol] = []
    /// Whether what was read last ended in a newline, so that a tag may be alone on its line.
    private var isAtLineStart = true

    init(_ text: String) { source = Lexer.normalizingNewlines(text) }

    static func normalizingNewlines(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var previous: UInt8 = 0
        for byte in text.utf8 {
            if byte == 0x0A, previous == 0x0D {
                // The newline was written when its carriage return came.
            } else {
                bytes.append(byte == 0x0D ? 0x0A : byte)
            }
            previous = byte
        }
        if bytes.last == 0x0A { bytes.removeLast() }
        return bytes
    }

    mutating func tokenize() throws -> [Token] {
        while position < source.count { try readRoot() }
        add(.end, "", at: source.count)
        return tokens
    }

    private enum Tag { case block, output, comment }
    private enum StripSign { case none, minus, plus }

    private mutating func readRoot() throws {
        let dataStart = position
        guard let (tag, tagStart) = findTag(from: position) else {
            addData(dataStart..<source.count)
            position = source.count
            return
        }
        position = tagStart + 2
        let sign = takeSign()
        addData(stripped(dataStart..<tagStart, before: tag, sign: sign))
        switch tag {
        case .comment:
            try readComment(from: tagStart)
        case .output:
            add(.outputBegin, "", at: tagStart)
            isAtLineStart = false
            try readTag(from: tagStart, closing: .outputEnd)
        case .block:
            if takeRawBegin() {
                try readRaw(from: tagStart)
            } else {
                add(.blockBegin, "", at: tagStart)
                isAtLineStart = false
                try readTag(from: tagStart, closing: .blockEnd)
            }
        }
    }

    private func findTag(from start: Int) -> (Tag, Int)? {
        var index = start
        while index + 1 < source.count {
            if source[index] == UInt8(ascii: "{") {
                switch source[index + 1] {
                case UInt8(ascii: "%"): return (.block, index)
                case UInt8(ascii: "{"): return (.output, index)
                case UInt8(ascii: "#"): return (.comment, index)
                default: break
                }
            }
            index += 1
        }
        return nil
    }

    private mutating func takeSign() -> StripSign {
        guard position < source.count else { return .none }
        switch source[position] {
        case UInt8(ascii: "-"):
            position += 1
            return .minus
        case UInt8(ascii: "+"):
            position += 1
            return .plus
        default: return .none
        }
    }

    /// The data before a tag, less what `-` and lstrip_blocks take from its end.
    private func stripped(_ data: Range<Int>, before tag: Tag, sign: StripSign) -> Range<Int> {
        if sign == .minus { return data.lowerBound..<spaceStart(before: data.upperBound, downTo: data.lowerBound) }
        guard sign == .none, tag != .output else { return data }
        let lineStart = source[data].lastIndex(of: 0x0A).map { $0 + 1 }
        guard lineStart != nil || isAtLineStart else { return data }
        let from = lineStart ?? data.lowerBound
        return spaceStart(before: data.upperBound, downTo: from) == from ? data.lowerBound..<from : data
    }

    private func spaceStart(before end: Int, downTo limit: Int) -> Int {
        var end = end
        while end > limit {
            var start = end - 1
            while start > limit, source[start] & 0xC0 == 0x80 { start -= 1 }
            guard let (scalar, _) = scalar(at: start), scalar.isPythonSpace else { break }
            end = start
        }
        return end
    }

    private func scalar(at index: Int) -> (Unicode.Scalar, length: Int)? {
        guard index < source.count else { return nil }
        if source[index] < 0x80 { return (Unicode.Scalar(source[index]), 1) }
        var decoder = UTF8.ForwardParser()
        var iterator = source[index...].makeIterator()
        guard case .valid(let encoded) = decoder.parseScalar(from: &iterator) else { return nil }
        return (UTF8.decode(encoded), encoded.count)
    }

    private func skippingSpace(from start: Int) -> Int {
        var index = start
        while let (scalar, length) = scalar(at: index), scalar.isPythonSpace { index += length }
        return index
    }

    private func hasPrefix(_ text: StaticString, at index: Int) -> Bool {
        let expected = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
        return index + expected.count <= source.count
            && source[index..<index + expected.count].elementsEqual(expected)
    }

    // MARK: Comments and raw blocks

    /// The index after the end of a comment or block tag that stands at `index`: `-` takes the space that follows,
    /// trim_blocks one newline, `+` nothing.
    private func tagEnd(_ close: StaticString, at index: Int) -> Int? {
        if hasPrefix(close, at: index) {
            let end = index + 2
            return end < source.count && source[end] == 0x0A ? end + 1 : end
        }
        guard index < source.count, hasPrefix(close, at: index + 1) else { return nil }
        switch source[index] {
        case UInt8(ascii: "-"): return skippingSpace(from: index + 3)
        case UInt8(ascii: "+"): return index + 3
        default: return nil
        }
    }

    private mutating func readComment(from start: Int) throws {
        while position < source.count {
            if let end = tagEnd("#}", at: position) {
                moveTo(end)
                return
            }
            position += 1
        }
        throw failure("Missing end of comment tag", at: start)
    }

    private mutating func moveTo(_ end: Int) {
        isAtLineStart = end > 0 && source[end - 1] == 0x0A
        position = end
    }

    /// Takes `raw %}` (spaces allowed) after a block's opening; no newline is trimmed after it.
    private mutating func takeRawBegin() -> Bool {
        var index = skippingSpace(from: position)
        guard hasPrefix("raw", at: index) else { return false }
        index = skippingSpace(from: index + 3)
        if hasPrefix("-%}", at: index) {
            moveTo(skippingSpace(from: index + 3))
        } else if hasPrefix("%}", at: index) {
            moveTo(index + 2)
        } else {
            return false
        }
        return true
    }

    private mutating func readRaw(from start: Int) throws {
        let dataStart = position
        var index = position
        while index < source.count {
            defer { index += 1 }
            guard hasPrefix("{%", at: index) else { continue }
            position = index + 2
            let sign = takeSign()
            let name = skippingSpace(from: position)
            guard hasPrefix("endraw", at: name), let end = tagEnd("%}", at: skippingSpace(from: name + 6)) else {
                continue
            }
            addData(stripped(dataStart..<index, before: .block, sign: sign))
            moveTo(end)
            return
        }
        throw failure("Missing end of raw directive", at: start)
    }

    // MARK: Inside tags

    private mutating func readTag(from start: Int, closing: Token.Kind) throws {
        brackets.removeAll()
        while position < source.count {
            let tokenStart = position
            if brackets.isEmpty, let end = closingEnd(closing) {
                add(closing, "", at: tokenStart)
                moveTo(end)
                return
            }
            let afterSpace = skippingSpace(from: position)
            if afterSpace > position {
                moveTo(afterSpace)
                continue
            }
            isAtLineStart = false
            if takeNumber() || takeName() { continue }
            if try takeString() { continue }
            try takeSymbol()
        }
    }

    private func closingEnd(_ closing: Token.Kind) -> Int? {
        if closing == .blockEnd { return tagEnd("%}", at: position) }
        if hasPrefix("-}}", at: position) { return skippingSpace(from: position + 3) }
        return hasPrefix("}}", at: position) ? position + 2 : nil
    }

    private mutating func takeName() -> Bool {
        var index = position
        guard let (first, length) = scalar(at: index), first == "_" || first.properties.isXIDStart else { return false }
        index += length
        while let (scalar, length) = scalar(at: index), scalar.properties.isXIDContinue { index += length }
        add(.name, String(decoding: source[position..<index], as: UTF8.self), at: position)
        position = index
        return true
    }

    private mutating func takeNumber() -> Bool {
        guard let number = NumberScanner(source: source, start: position).scan() else { return false }
        let digits = source[position..<number.end].filter { $0 != UInt8(ascii: "_") }
        add(number.isDouble ? .double : .integer, String(decoding: digits, as: UTF8.self), at: position)
        position = number.end
        return true
    }

    private mutating func takeString() throws -> Bool {
        let quote = source[position]
        guard quote == UInt8(ascii: "'") || quote == UInt8(ascii: "\"") else { return false }
        var index = position + 1
        while index < source.count, source[index] != quote { index += source[index] == UInt8(ascii: "\\") ? 2 : 1 }
        guard index < source.count else {
            throw failure("unexpected char \(quote == 0x22 ? "'\"'" : "\"'\""), a string is not closed", at: position)
        }
        let decoded: String
        do {
            decoded = try StringEscapes.decode(source[(position + 1)..<index])
        } catch let error as TemplateError {
            throw error.located(at: position, in: source)
        }
        add(.string, decoded, at: position)
        position = index + 1
        return true
    }

    private mutating func takeSymbol() throws {
        let start = position
        // The two-character symbols come first in the list of cases.
        guard let symbol = Token.Symbol.allCases.first(where: { source[start...].starts(with: $0.rawValue.utf8) })
        else {
            let scalar = scalar(at: start)?.0 ?? "?"
            throw failure("unexpected char '\(scalar)'", at: start)
        }
        switch symbol {
        case .leftBrace: brackets.append(.rightBrace)
        case .leftBracket: brackets.append(.rightBracket)
        case .leftParenthesis: brackets.append(.rightParenthesis)
        case .rightBrace, .rightBracket, .rightParenthesis:
            guard let expected = brackets.popLast() else { throw failure("unexpected '\(symbol.rawValue)'", at: start) }
            guard expected == symbol else {
                throw failure("unexpected '\(symbol.rawValue)', expected '\(expected.rawValue)'", at: start)
            }
        default: break
        }
        add(.symbol(symbol), symbol.rawValue, at: start)
        position += symbol.rawValue.utf8.count
    }

    private mutating func add(_ kind: Token.Kind, _ text: String, at start: Int) {
        tokens.append(Token(kind: kind, text: text, offset: SourceOffset(start)))
    }

    private mutating func addData(_ range: Range<Int>) {
        if range.isEmpty { return }
        add(.data, String(decoding: source[range], as: UTF8.self), at: range.lowerBound)
    }

    private func failure(_ message: String, at offset: Int) -> TemplateError {
        TemplateError(.syntax, message).located(at: offset, in: source)
    }
}
