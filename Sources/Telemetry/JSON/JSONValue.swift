public import OrderedCollections

/// A parsed JSON text, members in their order.
public indirect enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(OrderedDictionary<String, JSONValue>)

    public subscript(key: String) -> JSONValue? {
        if case .object(let members) = self { members[key] } else { nil }
    }

    public var string: String? { if case .string(let text) = self { text } else { nil } }
    public var bool: Bool? { if case .bool(let flag) = self { flag } else { nil } }
    public var int: Int? { if case .number(let number) = self { Int(exactly: number) } else { nil } }

    /// A number, also one of the strings by which `JSONWriter` writes what is not finite.
    public var double: Double? {
        switch self {
        case .number(let number): number
        case .string(let text): Double(jsonName: text)
        default: nil
        }
    }

    public var object: OrderedDictionary<String, JSONValue>? {
        if case .object(let members) = self { members } else { nil }
    }

    /// Writes this value; the members keep their order.
    public func write(to writer: inout JSONWriter) {
        switch self {
        case .null: writer.null()
        case .bool(let flag): writer.value(flag)
        case .number(let number):
            // Whole numbers lose their `.0`: a step that was read as 3 is written as 3.
            if let whole = Int(exactly: number), abs(number) < 1e15 {
                writer.value(whole)
            } else {
                writer.value(number)
            }
        case .string(let text): writer.value(text)
        case .array(let elements): writer.array { for element in elements { element.write(to: &$0) } }
        case .object(let members):
            writer.object {
                for (key, value) in members {
                    $0.key(key)
                    value.write(to: &$0)
                }
            }
        }
    }
}
