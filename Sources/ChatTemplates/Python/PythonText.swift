/// Python's `str` operations on UTF-8 and code points.
enum PythonText {
    /// The first place of `part` in `text`, as an index of `text`.
    static func find(_ part: [UInt8], in text: ArraySlice<UInt8>) -> Int? {
        guard let first = part.first else { return text.startIndex }
        return text.withUnsafeBufferPointer { buffer -> Int? in
            let last = buffer.count - part.count
            var index = 0
            while index <= last {
                if buffer[index] == first {
                    var length = 1
                    while length < part.count, buffer[index + length] == part[length] { length += 1 }
                    if length == part.count { return text.startIndex + index }
                }
                index += 1
            }
            return nil
        }
    }

    static func findLast(_ part: [UInt8], in text: ArraySlice<UInt8>) -> Int? {
        var index = text.endIndex - part.count
        while index >= text.startIndex {
            if text[index..<index + part.count].elementsEqual(part) { return index }
            index -= 1
        }
        return nil
    }

    static func string(_ bytes: some Collection<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }

    static func count(_ text: String) -> Int { text.unicodeScalars.count }

    /// The code point at a place from the start, or from the end when negative.
    static func scalar(of text: String, at index: Int) -> Unicode.Scalar? {
        let scalars = text.unicodeScalars
        if index >= 0 {
            guard index < text.utf8.count else { return nil }
            var place = scalars.startIndex
            guard scalars.formIndex(&place, offsetBy: index, limitedBy: scalars.endIndex), place < scalars.endIndex
            else { return nil }
            return scalars[place]
        }
        guard index >= -text.utf8.count else { return nil }
        var place = scalars.endIndex
        guard scalars.formIndex(&place, offsetBy: index, limitedBy: scalars.startIndex) else { return nil }
        return scalars[place]
    }

    /// Code points before a byte offset.
    static func scalarOffset(_ bytes: ArraySlice<UInt8>) -> Int { bytes.count { $0 & 0xC0 != 0x80 } }

    enum Side { case start, end, both }

    /// Takes from the ends the code points for which `isStripped` holds.
    static func strip(_ text: String, _ side: Side, where isStripped: (Unicode.Scalar) -> Bool) -> String {
        var scalars = text.unicodeScalars[...]
        if side != .end { while let first = scalars.first, isStripped(first) { scalars.removeFirst() } }
        if side != .start { while let last = scalars.last, isStripped(last) { scalars.removeLast() } }
        return String(scalars)
    }

    static func replace(
        _ text: String, _ old: String, _ new: String, count: Int, allocate: (Int, Int) throws -> Void
    ) throws -> String {
        if count == 0 { return text }
        let limit = count < 0 ? Int.max : count
        if old.isEmpty {
            // Python puts the new text before every code point and at the end.
            try allocate(min(PythonText.count(text) + 1, limit), new.utf8.count)
            var result = ""
            var done = 0
            for scalar in text.unicodeScalars {
                if done < limit {
                    result += new
                    done += 1
                }
                result.unicodeScalars.append(scalar)
            }
            return done < limit ? result + new : result
        }
        let bytes = Array(text.utf8)
        let part = Array(old.utf8)
        var places: [Int] = []
        var from = 0
        while places.count < limit, let place = find(part, in: bytes[from...]) {
            places.append(place)
            from = place + part.count
        }
        if places.isEmpty { return text }
        try allocate(places.count, new.utf8.count)
        var result: [UInt8] = []
        var end = 0
        for place in places {
            result += bytes[end..<place]
            result += new.utf8
            end = place + part.count
        }
        result += bytes[end...]
        return string(result)
    }

    /// Python's `split` at a separator, `limit` splits at most (negative: no limit).
    static func split(_ text: String, by separator: String, limit: Int) -> [String] {
        let bytes = Array(text.utf8)
        let part = Array(separator.utf8)
        var pieces: [String] = []
        var from = 0
        while limit < 0 || pieces.count < limit, let place = find(part, in: bytes[from...]) {
            pieces.append(string(bytes[from..<place]))
            from = place + part.count
        }
        pieces.append(string(bytes[from...]))
        return pieces
    }

    static func splitFromEnd(_ text: String, by separator: String, limit: Int) -> [String] {
        let bytes = Array(text.utf8)
        let part = Array(separator.utf8)
        var pieces: [String] = []
        var end = bytes.count
        while limit < 0 || pieces.count < limit, let place = findLast(part, in: bytes[..<end]) {
            pieces.append(string(bytes[(place + part.count)..<end]))
            end = place
        }
        pieces.append(string(bytes[..<end]))
        return pieces.reversed()
    }

    /// Python's `split()`: at runs of white space, none of it kept.
    static func words(_ text: String, limit: Int) -> [String] {
        var pieces: [String] = []
        var rest = text.unicodeScalars[...]
        while true {
            rest = rest.drop(while: \.isPythonSpace)
            if rest.isEmpty { return pieces }
            if limit >= 0, pieces.count >= limit {
                pieces.append(String(rest))
                return pieces
            }
            let end = rest.firstIndex(where: \.isPythonSpace) ?? rest.endIndex
            pieces.append(String(rest[..<end]))
            rest = rest[end...]
        }
    }

    static func wordsFromEnd(_ text: String, limit: Int) -> [String] {
        if limit < 0 { return words(text, limit: -1) }
        var pieces: [String] = []
        var rest = text.unicodeScalars[...]
        while true {
            while let last = rest.last, last.isPythonSpace { rest.removeLast() }
            if rest.isEmpty { break }
            if pieces.count >= limit {
                pieces.append(String(rest))
                break
            }
            let start = rest.lastIndex(where: \.isPythonSpace).map { rest.index(after: $0) } ?? rest.startIndex
            pieces.append(String(rest[start...]))
            rest = rest[..<start]
        }
        return pieces.reversed()
    }

    static func lines(_ text: String, keepEnds: Bool) -> [String] {
        var lines: [String] = []
        var line = String.UnicodeScalarView()
        var scalars = text.unicodeScalars[...]
        while let scalar = scalars.popFirst() {
            guard scalar.isPythonLineEnd else {
                line.append(scalar)
                continue
            }
            if keepEnds { line.append(scalar) }
            if scalar == "\r", scalars.first == "\n" {
                scalars.removeFirst()
                if keepEnds { line.append("\n") }
            }
            lines.append(String(line))
            line = String.UnicodeScalarView()
        }
        if !line.isEmpty { lines.append(String(line)) }
        return lines
    }

    /// `\xe9`, `\u4f60`, `\U0001f600`.
    static func backslashEscape(_ scalar: Unicode.Scalar) -> String {
        func padded(_ width: Int) -> String {
            let digits = String(scalar.value, radix: 16)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        if scalar.value < 0x100 { return "\\x" + padded(2) }
        return scalar.value < 0x10000 ? "\\u" + padded(4) : "\\U" + padded(8)
    }

    /// Python's `repr` of a string: single quotes unless the text holds only single ones.
    static func repr(_ text: String) -> String {
        let quote: Unicode.Scalar = text.utf8.contains(0x27) && !text.utf8.contains(0x22) ? "\"" : "'"
        var result = String.UnicodeScalarView()
        result.append(quote)
        for scalar in text.unicodeScalars {
            switch scalar {
            case quote, "\\":
                result.append("\\")
                result.append(scalar)
            case "\n": result.append(contentsOf: "\\n".unicodeScalars)
            case "\r": result.append(contentsOf: "\\r".unicodeScalars)
            case "\t": result.append(contentsOf: "\\t".unicodeScalars)
            default:
                if scalar.isPythonPrintable {
                    result.append(scalar)
                } else {
                    result.append(contentsOf: backslashEscape(scalar).unicodeScalars)
                }
            }
        }
        result.append(quote)
        return String(result)
    }
}

extension Unicode.Scalar {
    /// Python's `str.isspace`, which is also what its regular expressions call white space.
    var isPythonSpace: Bool {
        switch value {
        case 0x20, 0x09...0x0D, 0x1C...0x1F, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F,
            0x3000:
            true
        default: false
        }
    }

    /// Where `str.splitlines` breaks.
    var isPythonLineEnd: Bool {
        switch value {
        case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    var isPythonPrintable: Bool {
        if value < 0x7F { return value >= 0x20 }
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
            .spaceSeparator:
            return false
        default: return true
        }
    }
}
