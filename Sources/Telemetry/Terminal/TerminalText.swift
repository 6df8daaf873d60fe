/// Text as it stands in a terminal's cells.
enum TerminalText {
    /// The text with what could steer a terminal or break a line made visible: an answer may hold escape sequences.
    static func harmless(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": result.append("⏎")
            case "\t": result.append("⇥")
            case "\u{0}"..."\u{1F}": result.append(Unicode.Scalar(scalar.value + 0x2400)!)
            case "\u{7F}": result.append("␡")
            case "\u{80}"..."\u{9F}": result.append("\u{FFFD}")
            // Marks that turn the direction of writing, and separators of lines.
            case "\u{200E}", "\u{200F}", "\u{202A}"..."\u{202E}", "\u{2066}"..."\u{2069}", "\u{2028}", "\u{2029}":
                result.append("\u{FFFD}")
            default: result.append(scalar)
            }
        }
        return String(result)
    }

    /// The text in as many cells of ASCII.
    static func ascii(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "·", "─", "┤": result += "-"
            case "━": result += "="
            case "▸", "→": result += ">"
            case "…": result += "~"
            case "⏎", "⇥": result += " "
            default: result += character.isASCII ? String(character) : String(repeating: "?", count: width(character))
            }
        }
    }

    /// The number of cells that the text takes.
    static func width(_ text: some StringProtocol) -> Int { text.reduce(0) { $0 + width($1) } }

    static func width(_ character: Character) -> Int {
        let scalars = character.unicodeScalars
        if scalars.contains(where: \.properties.isEmojiPresentation) || scalars.contains("\u{FE0F}") { return 2 }
        guard let first = scalars.first else { return 0 }
        switch first.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format, .control: return 0
        default: return isWide(first) ? 2 : 1
        }
    }

    /// The longest beginning that fits, an ellipsis at its end when something was cut.
    static func clipped(_ text: String, to cells: Int) -> String {
        if width(text) <= cells { return text }
        if cells < 1 { return "" }
        var room = cells - 1
        var result = ""
        for character in text {
            room -= width(character)
            if room < 0 { break }
            result.append(character)
        }
        return result + "…"
    }

    static func padded(_ text: String, to cells: Int) -> String {
        text + String(repeating: " ", count: max(0, cells - width(text)))
    }

    /// East Asian wide and full-width characters (Unicode Standard Annex 11), in coarse blocks.
    private static func isWide(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0x33FF, 0x3400...0x4DBF, 0x4E00...0x9FFF, 0xA000...0xA4CF,
            0xA960...0xA97C, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6,
            0x1F300...0x1F64F, 0x1F680...0x1F6FF, 0x1F900...0x1F9FF, 0x20000...0x3FFFD:
            true
        default: false
        }
    }
}
