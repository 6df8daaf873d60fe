/// A metadata value of a GGUF file. Strings are bytes: a token need not be UTF-8.
public enum GGUFValue: Sendable, Hashable {
    case unsigned(UInt64)
    case signed(Int64)
    case float32(Float)
    case float64(Double)
    case bool(Bool)
    case string([UInt8])
    case array(GGUFArray)

    public var intValue: Int? {
        switch self {
        case .unsigned(let value): Int(exactly: value)
        case .signed(let value): Int(exactly: value)
        default: nil
        }
    }

    /// A number; a float32 by its shortest decimal, so that 1e-5 reads as 1e-5 and not as its binary neighbour.
    public var doubleValue: Double? {
        switch self {
        case .float32(let value): value.isFinite ? Double("\(value)") : Double(value)
        case .float64(let value): value
        default: intValue.map(Double.init)
        }
    }

    public var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var bytesValue: [UInt8]? { if case .string(let value) = self { value } else { nil } }
    /// A string that is UTF-8.
    public var stringValue: String? { bytesValue.flatMap { String(validating: $0, as: UTF8.self) } }
    public var arrayValue: GGUFArray? { if case .array(let value) = self { value } else { nil } }
}

/// An array of one element type.
public enum GGUFArray: Sendable, Hashable {
    case unsigned([UInt64])
    case signed([Int64])
    case float32([Float])
    case float64([Double])
    case bool([Bool])
    case string([[UInt8]])
    case array([GGUFArray])

    public var count: Int {
        switch self {
        case .unsigned(let values): values.count
        case .signed(let values): values.count
        case .float32(let values): values.count
        case .float64(let values): values.count
        case .bool(let values): values.count
        case .string(let values): values.count
        case .array(let values): values.count
        }
    }

    public var integers: [Int]? {
        switch self {
        case .unsigned(let values): values.map { Int(truncatingIfNeeded: $0) }
        case .signed(let values): values.map { Int(truncatingIfNeeded: $0) }
        default: nil
        }
    }

    public var strings: [[UInt8]]? { if case .string(let values) = self { values } else { nil } }
    public var floats: [Float]? { if case .float32(let values) = self { values } else { nil } }
}
