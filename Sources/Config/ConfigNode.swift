import OrderedCollections

/// Where a value was written.
enum Place: Hashable, Sendable {
    case file(String, line: Int, column: Int)
    /// The whole argument, `key=value`.
    case override(String)

    var isOverride: Bool {
        if case .override = self { true } else { false }
    }

    /// For the middle of a sentence.
    var brief: String {
        switch self {
        case .file(let name, let line, _): "\(name):\(line)"
        case .override: "command line"
        }
    }
}

/// A parsed YAML value that remembers where it was written.
struct ConfigNode: Sendable {
    enum Content: Sendable {
        case scalar(Scalar)
        case sequence([ConfigNode])
        case mapping(OrderedDictionary<String, Entry>)
    }

    struct Entry: Sendable {
        var keyPlace: Place
        var node: ConfigNode
    }

    struct Scalar: Sendable {
        var text: String
        /// Neither quoted nor a block: only then can it be anything but a string.
        var isPlain: Bool
    }

    var content: Content
    var place: Place

    /// Nothing: an empty value, `~` or `null`.
    var isNull: Bool {
        guard case .scalar(let scalar) = content, case .null = scalar.value else { return false }
        return true
    }

    /// "the integer 3", "a list": for the end of "expected …, got".
    var summary: String {
        switch content {
        case .sequence: "a list"
        case .mapping: "a mapping"
        case .scalar(let scalar):
            switch scalar.value {
            case .null: "nothing"
            case .bool: scalar.text
            case .integer, .oversizeInteger: "the integer \(shortened(scalar.text))"
            case .number: "the number \(shortened(scalar.text))"
            case .string: "the text \(YAMLText.quoted(shortened(scalar.text)))"
            }
        }
    }
}

extension ConfigNode.Scalar {
    enum Value: Equatable {
        case null
        case bool(Bool)
        case integer(Int)
        case oversizeInteger
        case number(Double)
        case string
    }

    /// What YAML 1.2's core schema makes of the text. (YAML 1.1 reads `1e-6` as text and `no` as false; nobody who
    /// writes a learning rate or a country wants that.)
    var value: Value {
        guard isPlain else { return .string }
        switch text {
        case "", "~", "null", "Null", "NULL": return .null
        case "true", "True", "TRUE": return .bool(true)
        case "false", "False", "FALSE": return .bool(false)
        case ".inf", ".Inf", ".INF", "+.inf": return .number(.infinity)
        case "-.inf", "-.Inf", "-.INF": return .number(-.infinity)
        case ".nan", ".NaN", ".NAN": return .number(.nan)
        default: return numeric ?? .string
        }
    }

    private var numeric: Value? {
        if let digits = suffix(after: "0x") { return Int(digits, radix: 16).map(Value.integer) }
        if let digits = suffix(after: "0o") { return Int(digits, radix: 8).map(Value.integer) }
        var rest = Substring(text).utf8
        if let sign = rest.first, sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") { rest = rest.dropFirst() }
        let whole = rest.prefix(while: \.isDigit)
        rest = rest.dropFirst(whole.count)
        // Readers differ on whether `012` is ten or twelve: it is no number here.
        if whole.count > 1 && whole.first == UInt8(ascii: "0") { return nil }
        if rest.isEmpty {
            return whole.isEmpty ? nil : Int(text).map(Value.integer) ?? .oversizeInteger
        }
        var digits = whole.count
        if rest.first == UInt8(ascii: ".") {
            let fraction = rest.dropFirst().prefix(while: \.isDigit)
            digits += fraction.count
            rest = rest.dropFirst(1 + fraction.count)
        }
        guard digits > 0 else { return nil }
        if rest.first == UInt8(ascii: "e") || rest.first == UInt8(ascii: "E") {
            rest = rest.dropFirst()
            if rest.first == UInt8(ascii: "-") || rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
            let exponent = rest.prefix(while: \.isDigit)
            guard !exponent.isEmpty else { return nil }
            rest = rest.dropFirst(exponent.count)
        }
        return rest.isEmpty ? Double(text).map(Value.number) : nil
    }

    private func suffix(after prefix: String) -> Substring? {
        guard text.utf8.starts(with: prefix.utf8), text.utf8.count > prefix.utf8.count,
            text.utf8.dropFirst(prefix.utf8.count).allSatisfy(\.isLetterOrDigit)
        else { return nil }
        return text.dropFirst(prefix.count)
    }
}

extension UInt8 {
    var isDigit: Bool { UInt8(ascii: "0")...UInt8(ascii: "9") ~= self }
    var isLetter: Bool { UInt8(ascii: "a")...UInt8(ascii: "z") ~= self | 0x20 }
    var isLetterOrDigit: Bool { isDigit || isLetter }
}
