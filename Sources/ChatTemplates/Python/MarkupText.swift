/// Text operations of the web that a few filters offer.
enum MarkupText {
    /// markupsafe's `striptags`: comments and tags go, white space is joined, character references are read.
    static func strippingTags(_ text: String) -> String {
        var bytes = Array(text.utf8)
        for (open, close) in [("<!--", "-->"), ("<", ">")] {
            var result: [UInt8] = []
            var from = 0
            while let start = PythonText.find(Array(open.utf8), in: bytes[from...]),
                let end = PythonText.find(Array(close.utf8), in: bytes[start...])
            {
                result += bytes[from..<start]
                from = end + close.utf8.count
            }
            bytes = result + bytes[from...]
        }
        return unescape(PythonText.words(PythonText.string(bytes), limit: -1).joined(separator: " "))
    }

    private static func unescape(_ text: String) -> String {
        let names: [String: String] = ["amp": "&", "lt": "<", "gt": ">", "quot": "\"", "apos": "'", "nbsp": "\u{A0}"]
        var result = ""
        var rest = text[...]
        while let start = rest.firstIndex(of: "&") {
            result += rest[..<start]
            rest = rest[start...]
            guard let end = rest.firstIndex(of: ";") else { break }
            let name = rest[rest.index(after: start)..<end]
            var replacement = names[String(name)]
            if name.hasPrefix("#") {
                let digits = name.dropFirst()
                let code = digits.lowercased().hasPrefix("x") ? UInt32(digits.dropFirst(), radix: 16) : UInt32(digits)
                replacement = code.flatMap(Unicode.Scalar.init).map { String($0) }
            }
            if let replacement {
                result += replacement
                rest = rest[rest.index(after: end)...]
            } else {
                result += "&"
                rest = rest.dropFirst()
            }
        }
        return result + rest
    }

    static func percentEncoded(_ text: String, isQuery: Bool) -> String {
        var result: [UInt8] = []
        let digits = Array("0123456789ABCDEF".utf8)
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"),
                UInt8(ascii: "~"):
                result.append(byte)
            case UInt8(ascii: "/") where !isQuery: result.append(byte)
            case UInt8(ascii: " ") where isQuery: result.append(UInt8(ascii: "+"))
            default: result += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return PythonText.string(result)
    }
}

/// Python's `textwrap` as `wordwrap` calls it: tabs and white space stay as they are.
struct TextWrapper {
    let width: Int
    let breaksLongWords: Bool
    let breaksOnHyphens: Bool

    func lines(_ text: String) -> [String] {
        var chunks = Array(chunks(text).reversed())
        var lines: [String] = []
        while !chunks.isEmpty {
            var line: [[Unicode.Scalar]] = []
            var length = 0
            if isBlank(chunks[chunks.count - 1]), !lines.isEmpty { chunks.removeLast() }
            while let next = chunks.last, length + next.count <= width {
                line.append(next)
                length += next.count
                chunks.removeLast()
            }
            if let next = chunks.last, next.count > width {
                splitLong(&chunks, &line, room: width - length)
            }
            if let last = line.last, isBlank(last) { line.removeLast() }
            if !line.isEmpty {
                var text = String.UnicodeScalarView()
                for chunk in line { text.append(contentsOf: chunk) }
                lines.append(String(text))
            }
        }
        return lines
    }

    private func isBlank(_ chunk: [Unicode.Scalar]) -> Bool { chunk.allSatisfy(isSpace) }

    /// textwrap knows ASCII's white space only.
    private func isSpace(_ scalar: Unicode.Scalar) -> Bool {
        scalar == " " || (scalar.value >= 9 && scalar.value <= 13)
    }

    private func splitLong(_ chunks: inout [[Unicode.Scalar]], _ line: inout [[Unicode.Scalar]], room: Int) {
        let room = max(room, 1)
        let chunk = chunks[chunks.count - 1]
        if breaksLongWords {
            var end = room
            if breaksOnHyphens, chunk.count > room, let hyphen = chunk[..<room].lastIndex(of: "-"), hyphen > 0,
                chunk[..<hyphen].contains(where: { $0 != "-" })
            {
                end = hyphen + 1
            }
            line.append(Array(chunk[..<end]))
            chunks[chunks.count - 1] = Array(chunk[end...])
        } else if line.isEmpty {
            line.append(chunks.removeLast())
        }
    }

    /// Words, runs of white space, and (where asked) the parts of hyphenated words.
    private func chunks(_ text: String) -> [[Unicode.Scalar]] {
        var chunks: [[Unicode.Scalar]] = []
        var rest = Array(text.unicodeScalars)[...]
        while let first = rest.first {
            let isGap = isSpace(first)
            let end = rest.firstIndex { isSpace($0) != isGap } ?? rest.endIndex
            let piece = rest[..<end]
            rest = rest[end...]
            if isGap || !breaksOnHyphens { chunks.append(Array(piece)) } else { chunks += hyphenated(Array(piece)) }
        }
        return chunks
    }

    private func hyphenated(_ word: [Unicode.Scalar]) -> [[Unicode.Scalar]] {
        var parts: [[Unicode.Scalar]] = []
        var start = 0
        for index in word.indices where word[index] == "-" && index >= 2 && index + 1 < word.count {
            // A break needs two letters before the hyphen and a letter after it (or a letter, a hyphen … before).
            let isWordBefore = StringMethods.isAlphabetic(word[index - 1])
            let isLongEnough = StringMethods.isAlphanumeric(word[index - 2]) && index - 2 >= start
            let isWordAfter = StringMethods.isAlphabetic(word[index + 1])
            if isWordBefore, isLongEnough, isWordAfter {
                parts.append(Array(word[start...index]))
                start = index + 1
            }
        }
        parts.append(Array(word[start...]))
        return parts
    }
}
