public import Tokenizers

/// A text's tokens one by one, for people to look at.
public struct TokenListing: Hashable, Sendable {
    public struct Row: Hashable, Sendable {
        public var id: Int32
        /// The spelling in the vocabulary; nil for an id that the vocabulary has not.
        public var piece: String?
        /// What the token alone decodes to; U+FFFD stands for part of a character.
        public var text: String
        public var isSpecial: Bool
        /// Where it comes from in the text, in UTF-8 bytes and in code points; nil for decoded ids.
        public var bytes: Range<Int>?
        public var characters: Range<Int>?
    }

    public var text: String
    public var rows: [Row]

    /// The tokens of a text.
    /// - Parameter addSpecialTokens: puts in what the tokenizer's template says.
    /// - Throws: `TokenizerError`.
    public init(encoding text: String, by tokenizer: Tokenizer, addSpecialTokens: Bool) throws {
        let encoding = try tokenizer.encoding(text, addSpecialTokens: addSpecialTokens)
        self.text = text
        rows = encoding.ids.indices.map { index in
            var row = Row(encoding.ids[index], tokenizer)
            row.bytes = encoding.byteOffsets[index]
            row.characters = encoding.characterOffsets[index]
            return row
        }
    }

    /// The text of ids.
    /// - Parameter skipSpecialTokens: leaves special tokens out of the text, not out of the rows.
    public init(decoding ids: [Int32], by tokenizer: Tokenizer, skipSpecialTokens: Bool) {
        text = tokenizer.decode(ids, skipSpecialTokens: skipSpecialTokens)
        rows = ids.map { Row($0, tokenizer) }
    }

    public var ids: [Int32] { rows.map(\.id) }

    /// Ids that the vocabulary has not.
    public var unknownIDs: [Int32] { rows.filter { $0.piece == nil }.map(\.id) }

    /// Text with blanks, line breaks and control characters to be seen: `·` for a space, `⏎`, `⇥`, `␛` and so on.
    public static func visible(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar {
            case " ": result.append("·")
            case "\n": result.append("⏎")
            case "\t": result.append("⇥")
            case "\u{0}"..."\u{1F}": result.append(Unicode.Scalar(scalar.value + 0x2400)!)
            case "\u{7F}": result.append("␡")
            default:
                // What shows nothing, or steers the terminal, is named by its number.
                switch scalar.properties.generalCategory {
                case .control, .format, .lineSeparator, .paragraphSeparator, .spaceSeparator, .privateUse, .unassigned,
                    .surrogate:
                    result.append(contentsOf: "\\u{\(String(scalar.value, radix: 16, uppercase: true))}".unicodeScalars)
                default: result.append(scalar)
                }
            }
        }
        return String(result)
    }
}

extension TokenListing.Row {
    fileprivate init(_ id: Int32, _ tokenizer: Tokenizer) {
        self.id = id
        piece = tokenizer.token(for: id)
        text = tokenizer.decode([id], skipSpecialTokens: false)
        isSpecial = tokenizer.isSpecial(id)
    }
}
