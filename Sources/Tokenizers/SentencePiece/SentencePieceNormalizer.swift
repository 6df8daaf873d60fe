/// SentencePiece's own normalizer: the table of replacements, blanks made visible, one put before the text, runs and ends
/// of them taken away, as the model's `normalizer_spec` says (`normalizer.cc`).
struct SentencePieceNormalizer: Sendable {
    static let mark = Array("\u{2581}".utf8)

    let map: PrecompiledMap?
    /// User-defined symbols are left as they are.
    let userDefined: ByteTrie
    let addsDummyPrefix: Bool
    let removesExtraWhitespace: Bool
    let escapesWhitespace: Bool

    init(_ model: SentencePieceModel) throws {
        map =
            model.charsmap.isEmpty
            ? nil : try PrecompiledMap(bytes: model.charsmap, at: "normalizer_spec.precompiled_charsmap")
        var trie = ByteTrie()
        for (id, piece) in model.pieces.enumerated() where piece.type == .userDefined {
            trie.insert(piece.spelling, Int32(id))
        }
        userDefined = trie
        addsDummyPrefix = model.addsDummyPrefix
        removesExtraWhitespace = model.removesExtraWhitespace
        escapesWhitespace = model.escapesWhitespace
    }

    private static let blank: ArraySlice<UInt8> = [0x20]

    /// What the text at `position` becomes, and how much of it is taken.
    @inline(__always)
    private func rule(
        _ text: UnsafeBufferPointer<UInt8>, _ position: Int
    ) -> (replacement: ArraySlice<UInt8>?, length: Int) {
        if !userDefined.isEmpty, let match = userDefined.longestPrefix(of: text, from: position) {
            return (nil, match.end - position)
        }
        if let found = map?.longestReplacement(in: text, at: position) { return (found.replacement, found.length) }
        return (nil, min(UTF8Scanner.length(of: text[position]), text.count - position))
    }

    func normalize(_ text: inout AlignedText) {
        var result = AlignedText.empty(like: text)
        let source = text
        source.bytes.withUnsafeBufferPointer { bytes in
            var position = 0
            if removesExtraWhitespace {
                while position < bytes.count {
                    let (replacement, length) = rule(bytes, position)
                    let isBlank =
                        replacement.map { $0 == Self.blank } ?? (length == 1 && bytes[position] == 0x20)
                    guard isBlank else { break }
                    position += length
                }
            }
            guard position < bytes.count else { return }
            let blank = escapesWhitespace ? Self.mark[...] : Self.blank
            if addsDummyPrefix { result.append(blank, from: source.span(at: position).atStart) }
            var isAfterBlank = removesExtraWhitespace
            while position < bytes.count {
                let (replacement, length) = rule(bytes, position)
                let span = source.isTracked ? source.span(over: position..<position + length) : Span(start: 0, end: 0)
                var rest = replacement ?? ArraySlice(bytes[position..<position + length])
                position += length
                if isAfterBlank { rest = rest.drop { $0 == 0x20 } }
                if let last = rest.last {
                    isAfterBlank = last == 0x20
                    if escapesWhitespace, rest.contains(0x20) {
                        for byte in rest {
                            if byte == 0x20 {
                                result.append(blank, from: span)
                            } else {
                                result.append([byte], from: span)
                            }
                        }
                    } else {
                        result.append(rest, from: span)
                    }
                }
                if !removesExtraWhitespace { isAfterBlank = false }
            }
            if removesExtraWhitespace {
                var end = result.bytes.count
                while end >= blank.count, result.bytes[end - blank.count..<end] == blank { end -= blank.count }
                if end < result.bytes.count { result = result.slice(0..<end) }
            }
        }
        text = result
    }
}

extension Span {
    /// Nothing, at where it begins.
    var atStart: Span { Span(start: start, end: start) }
}
