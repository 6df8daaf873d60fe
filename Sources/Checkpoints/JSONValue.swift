public import OrderedCollections

/// A JSON object with its keys in the order of the file.
public typealias JSONObject = OrderedDictionary<String, JSONValue>

/// A JSON value that keeps integers apart from doubles and objects in order, so that a file can be written back.
public enum JSONValue: Sendable, Hashable {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    public var objectValue: JSONObject? { if case .object(let value) = self { value } else { nil } }
    public var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    public var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var isNull: Bool { self == .null }

    /// An integer, or a double that is exactly one.
    public var intValue: Int? {
        switch self {
        case .int(let value): value
        case .double(let value): Int(exactly: value)
        default: nil
        }
    }

    /// Any number.
    public var doubleValue: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// The value's type, for messages.
    public var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .int: "an integer"
        case .double: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }
}

// MARK: - Writing

extension JSONValue {
    /// Text as Python's `json.dumps(indent=2)` lays it out, or on one line; UTF-8, non-ASCII left as it is.
    public func text(indented: Bool = true) -> String {
        var out = ""
        write(to: &out, depth: indented ? 0 : nil)
        return out
    }

    private func write(to out: inout String, depth: Int?) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .int(let value): out += String(value)
        case .double(let value):
            // Python's spelling; swift prints "inf" and "nan".
            if value.isNaN {
                out += "NaN"
            } else if value.isInfinite {
                out += value < 0 ? "-Infinity" : "Infinity"
            } else {
                out += "\(value)"
            }
        case .string(let value): Self.quote(value, to: &out)
        case .array(let values):
            Self.list(values.count, "[", "]", depth, &out) { index, inner, out in
                values[index].write(to: &out, depth: inner)
            }
        case .object(let entries):
            Self.list(entries.count, "{", "}", depth, &out) { index, inner, out in
                let (key, value) = entries.elements[index]
                Self.quote(key, to: &out)
                out += depth == nil ? ":" : ": "
                value.write(to: &out, depth: inner)
            }
        }
    }

    private static func list(
        _ count: Int, _ open: String, _ close: String, _ depth: Int?, _ out: inout String,
        _ element: (Int, Int?, inout String) -> Void
    ) {
        out += open
        let inner = depth.map { $0 + 1 }
        for index in 0..<count {
            if index > 0 { out += "," }
            if let inner { out += "\n" + String(repeating: "  ", count: inner) }
            element(index, inner, &out)
        }
        if let depth, count > 0 { out += "\n" + String(repeating: "  ", count: depth) }
        out += close
    }

    private static func quote(_ text: String, to out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
