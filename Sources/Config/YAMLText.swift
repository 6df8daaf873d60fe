/// Values as YAML text, in the flow style: what is written here reads back the same.
enum YAMLText {
    /// Bare where that is safe and plain to see, else in double quotes.
    static func string(_ text: String) -> String {
        isSafeBare(text) ? text : quoted(text)
    }

    static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case "\r": out += "\\r"
            case " "..."~": out.unicodeScalars.append(scalar)
            case "\u{A1}"..."\u{D7FF}" where scalar.value != 0x2028 && scalar.value != 0x2029,
                "\u{E000}"..."\u{FEFE}", "\u{FF00}"..."\u{FFFD}", "\u{10000}"..."\u{10FFFF}":
                out.unicodeScalars.append(scalar)
            default: out += "\\u" + hexadecimal(scalar.value)
            }
        }
        return out + "\""
    }

    static func list(_ items: [String]) -> String { "[" + items.joined(separator: ", ") + "]" }

    static func mapping(_ items: [(key: String, value: String)]) -> String {
        "{" + items.map { "\(string($0.key)): \($0.value)" }.joined(separator: ", ") + "}"
    }

    /// Reads back as the same `Double`, and as a number even where it is whole.
    static func number(_ value: Double) -> String {
        let parts = "\(value)".split(separator: "e")
        guard parts.count == 2, let exponent = Int(parts[1]) else { return "\(value)" }
        return "\(parts[0])e\(exponent)"
    }

    static func optional<Value>(_ value: Value?, _ text: (Value) -> String) -> String { value.map(text) ?? "null" }

    private static func isSafeBare(_ text: String) -> Bool {
        guard let first = text.utf8.first, first.isLetter || first == UInt8(ascii: "/"), text.utf8.count <= 100 else {
            return false
        }
        let isNameLike = text.utf8.allSatisfy { byte in
            byte.isLetterOrDigit || "_-./+".utf8.contains(byte)
        }
        guard isNameLike || text.utf8.starts(with: "builtin:".utf8) && isSafeBare(String(text.dropFirst(8))) else {
            return false
        }
        // YAML 1.1 readers take these for booleans.
        if ["yes", "no", "on", "off", "y", "n"].contains(text.lowercased()) { return false }
        return ConfigNode.Scalar(text: text, isPlain: true).value == .string
    }

    /// Four digits: only the basic plane needs escapes.
    private static func hexadecimal(_ value: UInt32) -> String {
        let digits = String(value, radix: 16, uppercase: true)
        return String(repeating: "0", count: 4 - digits.count) + digits
    }
}
