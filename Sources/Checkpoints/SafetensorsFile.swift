internal import OrderedCollections
public import TensorCore

/// One safetensors file, mapped: the header is checked whole at opening, and tensors borrow from the map.
///
/// The rules are the format's own: an 8-byte little-endian header length of at most 100 MB, a JSON header, and tensors that
/// fill the rest of the file without gap or overlap.
public final class SafetensorsFile {
    /// Where one tensor lies.
    public struct Entry: Sendable, Hashable {
        public let dtype: DType
        public let shape: [Int]
        /// Byte range in the file.
        public let range: Range<Int>
    }

    public static let headerLimit = 100_000_000

    public let file: MappedFile
    /// The text under `__metadata__`.
    public let metadata: [String: String]
    /// In the order of their data.
    public let tensorNames: [String]
    private let entries: [String: Entry]
    /// Where the header's JSON lies, for the identity of a model.
    let headerRange: Range<Int>

    public var path: String { file.path }

    /// - Throws: `CheckpointError` naming the file and the tensor: `truncated`, `malformed`, `unsupported`, `duplicate`,
    ///   `gitLFSPointer`, `notFound`.
    public init(path: String) throws {
        file = try MappedFile(path: path)
        try file.refuseGitLFSPointer()
        let prefix = try file.slice(0, 8, of: "the header length")
        let length = prefix.loadUnaligned(as: UInt64.self)
        guard length <= UInt64(Self.headerLimit) else {
            throw CheckpointError(
                .malformed, path, "the header claims \(length) bytes, more than \(Self.headerLimit)",
                remedy: "this is not a safetensors file")
        }
        let header = try file.slice(8, Int(length), of: "the header")
        headerRange = 8..<(8 + Int(length))
        guard header.first == UInt8(ascii: "{") else {
            throw CheckpointError(
                .malformed, path, "the header does not start with '{'", remedy: "this is not a safetensors file")
        }
        guard case .object(let object) = try JSONParser.parse(header, from: path, rejectsDuplicates: true) else {
            throw CheckpointError(.malformed, path, "the header is not an object")
        }
        var metadata: [String: String] = [:]
        var parsed: [(name: String, entry: Entry)] = []
        parsed.reserveCapacity(object.count)
        for (name, value) in object {
            if name == "__metadata__" {
                metadata = try Self.metadata(value, path)
            } else {
                let entry = try Self.entry(value, name, dataStart: headerRange.upperBound, fileSize: file.count, path)
                parsed.append((name, entry))
            }
        }
        parsed.sort {
            ($0.entry.range.lowerBound, $0.entry.range.upperBound)
                < ($1.entry.range.lowerBound, $1.entry.range.upperBound)
        }
        var end = headerRange.upperBound
        for (name, entry) in parsed {
            guard entry.range.lowerBound == end else {
                let fault = entry.range.lowerBound < end ? "overlaps the tensor before it" : "leaves a gap before it"
                throw CheckpointError(
                    .malformed, path,
                    "tensor '\(name)' at bytes \(entry.range) \(fault), which ends at \(end)")
            }
            end = entry.range.upperBound
        }
        guard end == file.count else {
            throw CheckpointError(.malformed, path, "\(file.count - end) bytes after the last tensor belong to none")
        }
        self.metadata = metadata
        tensorNames = parsed.map(\.name)
        entries = Dictionary(uniqueKeysWithValues: parsed.map { ($0.name, $0.entry) })
    }

    public func entry(named name: String) throws -> Entry {
        guard let entry = entries[name] else {
            throw CheckpointError(.missingTensor, path, "there is no tensor '\(name)'")
        }
        return entry
    }

    public func contains(_ name: String) -> Bool { entries[name] != nil }

    /// The tensor, on the CPU: borrowed from the map when its data is aligned for its type, else copied. Writing to it changes
    /// memory only, never the file.
    public func tensor(named name: String) throws -> Tensor {
        let entry = try entry(named: name)
        return try Tensor.mapped(file, entry.range, shape: entry.shape, dtype: entry.dtype)
    }

    // MARK: Header

    private static func metadata(_ value: JSONValue, _ path: String) throws -> [String: String] {
        guard case .object(let object) = value else {
            throw CheckpointError(.malformed, path, "__metadata__ is \(value.kind), not an object")
        }
        var metadata: [String: String] = [:]
        for (key, value) in object {
            guard case .string(let text) = value else {
                throw CheckpointError(.malformed, path, "__metadata__ '\(key)' is \(value.kind), not a string")
            }
            metadata[key] = text
        }
        return metadata
    }

    private static func entry(
        _ value: JSONValue, _ name: String, dataStart: Int, fileSize: Int, _ path: String
    ) throws -> Entry {
        func malformed(_ message: String) -> CheckpointError {
            CheckpointError(.malformed, path, "tensor '\(name)': \(message)")
        }
        guard case .object(let object) = value else { throw malformed("its entry is \(value.kind), not an object") }
        guard case .string(let dtypeName)? = object["dtype"] else { throw malformed("it has no dtype") }
        guard let dtype = DType(safetensors: dtypeName) else {
            throw CheckpointError(.unsupported, path, "tensor '\(name)': the dtype \(dtypeName) is not read here")
        }
        guard case .array(let dimensions)? = object["shape"] else { throw malformed("it has no shape") }
        var shape: [Int] = []
        for dimension in dimensions {
            guard case .int(let size) = dimension, size >= 0 else {
                throw malformed("its shape holds \(dimension.text(indented: false))")
            }
            shape.append(size)
        }
        guard case .array(let offsets)? = object["data_offsets"], offsets.count == 2, case .int(let start) = offsets[0],
            case .int(let end) = offsets[1]
        else { throw malformed("its data_offsets are not two integers") }
        guard start >= 0, start <= end else { throw malformed("its data_offsets are [\(start), \(end)]") }
        guard end <= fileSize - dataStart else {
            throw CheckpointError(
                .truncated, path,
                "tensor '\(name)' ends at byte \(end) of the data, but the file has \(fileSize - dataStart)",
                remedy: "the file is cut short: fetch it again")
        }
        guard let size = byteCount(shape, elementSize: dtype.size) else {
            throw malformed("its shape \(shape) has too many elements")
        }
        guard size == end - start else {
            throw malformed("\(dtypeName)\(shape) takes \(size) bytes, but its data_offsets span \(end - start)")
        }
        return Entry(dtype: dtype, shape: shape, range: (dataStart + start)..<(dataStart + end))
    }
}

/// The bytes of `shape`, or nil when they overflow.
func byteCount(_ shape: [Int], elementSize: Int) -> Int? {
    // A zero anywhere makes the product zero, but the others still must not overflow on the way: torch multiplies too.
    var product = elementSize
    for dimension in shape where dimension != 0 {
        let (next, overflow) = product.multipliedReportingOverflow(by: dimension)
        if overflow { return nil }
        product = next
    }
    return shape.contains(0) ? 0 : product
}

extension Tensor {
    /// A tensor over `range` of a mapped file: borrowed when aligned for the type, else copied. The range is checked already.
    static func mapped(_ file: MappedFile, _ range: Range<Int>, shape: [Int], dtype: DType) throws -> Tensor {
        if !range.isEmpty, let address = file.mutableAddress(at: range.lowerBound),
            UInt(bitPattern: address) % UInt(dtype.size) == 0
        {
            return try Tensor(borrowing: address, shape: shape, dtype: dtype, owner: file)
        }
        let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[range])
        if bytes.isEmpty { return try Tensor.empty(shape, dtype: dtype) }
        return try withExtendedLifetime(file) { try Tensor(bytes: bytes, shape: shape, dtype: dtype) }
    }
}

extension DType {
    /// The type that a safetensors header names, when torch has it.
    init?(safetensors name: String) {
        guard let match = Self.safetensorsNames.first(where: { $0.name == name }) else { return nil }
        self = match.dtype
    }

    /// The name in a safetensors header.
    var safetensorsName: String { Self.safetensorsNames.first { $0.dtype == self }!.name }

    private static let safetensorsNames: [(name: String, dtype: DType)] = [
        ("F64", .float64), ("F32", .float32), ("F16", .float16), ("BF16", .bfloat16), ("I64", .int64), ("I32", .int32),
        ("I16", .int16), ("I8", .int8), ("U8", .uint8), ("BOOL", .bool), ("F8_E4M3", .float8e4m3),
        ("F8_E5M2", .float8e5m2),
    ]
}
