/// The type of a tensor's elements; raw values are c10::ScalarType's.
public enum DType: Int32, Sendable, Hashable, CaseIterable, Codable {
    case uint8 = 0
    case int8 = 1
    case int16 = 2
    case int32 = 3
    case int64 = 4
    case float16 = 5
    case float32 = 6
    case float64 = 7
    case bool = 11
    case bfloat16 = 15
    case float8e5m2 = 23
    case float8e4m3 = 24

    /// Bytes of one element.
    public var size: Int {
        switch self {
        case .uint8, .int8, .bool, .float8e5m2, .float8e4m3: 1
        case .int16, .float16, .bfloat16: 2
        case .int32, .float32: 4
        case .int64, .float64: 8
        }
    }

    public var isFloatingPoint: Bool {
        switch self {
        case .float16, .float32, .float64, .bfloat16, .float8e5m2, .float8e4m3: true
        default: false
        }
    }
}

/// A Swift type whose values are a tensor's elements.
public protocol TensorScalar: BitwiseCopyable {
    static var dtype: DType { get }
}
extension Float: TensorScalar { public static var dtype: DType { .float32 } }
extension Double: TensorScalar { public static var dtype: DType { .float64 } }
extension Int64: TensorScalar { public static var dtype: DType { .int64 } }
extension Int32: TensorScalar { public static var dtype: DType { .int32 } }
extension UInt8: TensorScalar { public static var dtype: DType { .uint8 } }
extension Bool: TensorScalar { public static var dtype: DType { .bool } }
