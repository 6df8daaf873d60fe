import OrderedCollections

/// Python's `json.dumps`, which is what `tojson` is in `transformers`.
struct JSONWriter {
    var ensuresASCII = false
    var indent: String?
    var itemSeparator: String
    var keySeparator: String
    var sortsKeys = false
    private var text = ""
    private let interpreter: Interpreter

    init(indent: String?, interpreter: Interpreter) {
        self.indent = indent
        self.interpreter = interpreter
        itemSeparator = indent == nil ? ", " : ","
        keySeparator = ": "
    }

    mutating func write(_ value: Value) throws -> String {
        text = ""
        try append(value, level: 0)
        return text
    }

    private mutating func append(_ value: Value, level: Int) throws {
        try interpreter.step()
        if text.utf8.count > interpreter.limits.outputBytes { throw Budget.tooLong(interpreter.limits) }
        switch value {
        case .none: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .int(let value): text += String(value)
        case .double(let value): text += JSONWriter.spell(value)
        case .string(let value), .markup(let value): appendString(value)
        case .list(let elements), .tuple(let elements): try appendList(elements.items, level: level)
        case .dictionary(let mapping): try appendMapping(mapping, level: level)
        default: throw TemplateError(.type, "Object of type \(value.typeName) is not JSON serializable")
        }
    }

    private static func spell(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Infinity" : "Infinity" }
        return Numbers.repr(value)
    }

    private mutating func appendList(_ items: [Value], level: Int) throws {
        if items.isEmpty {
            text += "[]"
            return
        }
        try interpreter.enter()
        defer { interpreter.leave() }
        text += "["
        for (index, item) in items.enumerated() {
            if index > 0 { text += itemSeparator }
            try appendBreak(level + 1)
            try append(item, level: level + 1)
        }
        try appendBreak(level)
        text += "]"
    }

    private mutating func appendMapping(_ mapping: Mapping, level: Int) throws {
        if mapping.entries.isEmpty {
            text += "{}"
            return
        }
        try interpreter.enter()
        defer { interpreter.leave() }
        var pairs = mapping.entries.map { (key: $0.key.value, value: $0.value) }
        if sortsKeys { pairs = try interpreter.sorted(pairs) { $0.key } }
        text += "{"
        for (index, pair) in pairs.enumerated() {
            if index > 0 { text += itemSeparator }
            try appendBreak(level + 1)
            appendString(try key(pair.key))
            text += keySeparator
            try append(pair.value, level: level + 1)
        }
        try appendBreak(level)
        text += "}"
    }

    private func key(_ value: Value) throws -> String {
        switch value {
        case .string(let text), .markup(let text): return text
        case .none: return "null"
        case .bool(let value): return value ? "true" : "false"
        case .int(let value): return String(value)
        case .double(let value): return JSONWriter.spell(value)
        default:
            throw TemplateError(.type, "keys must be str, int, float, bool or None, not \(value.typeName)")
        }
    }

    private mutating func appendBreak(_ level: Int) throws {
        guard let indent else { return }
        try interpreter.allocate(level, times: indent.utf8.count)
        text += "\n"
        for _ in 0..<level { text += indent }
    }

    private mutating func appendString(_ value: String) {
        text += "\""
        let isPlain = value.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x22 && $0 != 0x5C && ($0 < 0x7F || !ensuresASCII) }
        if isPlain { text += value } else { appendEscaped(value) }
        text += "\""
    }

    private mutating func appendEscaped(_ value: String) {
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case "\u{8}": text += "\\b"
            case "\u{C}": text += "\\f"
            default:
                if scalar.value < 0x20 || (ensuresASCII && scalar.value > 0x7E) {
                    for unit in UTF16.encode(scalar) ?? .init() { text += JSONWriter.unitEscape(unit) }
                } else {
                    text.unicodeScalars.append(scalar)
                }
            }
        }
    }

    private static func unitEscape(_ unit: UInt16) -> String {
        let digits = String(unit, radix: 16)
        return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    }
}
