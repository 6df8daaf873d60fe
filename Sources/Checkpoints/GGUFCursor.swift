/// Walks a GGUF header; every read is checked against the end of the file.
struct GGUFCursor {
    let file: MappedFile
    private(set) var offset = 0

    init(_ file: MappedFile) { self.file = file }

    var remaining: Int { file.count - offset }

    func malformed(_ message: String) -> CheckpointError {
        CheckpointError(.malformed, file.path, "at byte \(offset): \(message)")
    }

    mutating func read<Value: BitwiseCopyable>(_ type: Value.Type = Value.self, _ what: String) throws -> Value {
        let size = MemoryLayout<Value>.size
        let bytes = try file.slice(offset, size, of: what)
        offset += size
        return bytes.loadUnaligned(as: Value.self)
    }

    /// A count of things that take at least `minimumSize` bytes each: more than the file can hold is refused before anything
    /// is allocated.
    mutating func count(minimumSize: Int, _ what: String) throws -> Int {
        let count = try read(UInt64.self, what)
        guard count <= UInt64(remaining / minimumSize) else {
            throw CheckpointError(
                .truncated, file.path, "at byte \(offset): \(what) is \(count), more than \(remaining) bytes can hold",
                remedy: "the file is cut short or damaged: fetch it again")
        }
        return Int(count)
    }

    mutating func string(_ what: String) throws -> [UInt8] {
        let length = try count(minimumSize: 1, "the length of " + what)
        let bytes = try file.slice(offset, length, of: what)
        offset += length
        return [UInt8](bytes)
    }

    mutating func name(_ what: String) throws -> String {
        let bytes = try string(what)
        guard bytes.count <= 65535 else { throw malformed("\(what) is \(bytes.count) bytes long") }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw malformed("\(what) is not UTF-8") }
        return text
    }

    mutating func value(of key: String) throws -> GGUFValue {
        let type = try read(UInt32.self, "the type of '\(key)'")
        switch type {
        case 0: return .unsigned(UInt64(try read(UInt8.self, key)))
        case 1: return .signed(Int64(try read(Int8.self, key)))
        case 2: return .unsigned(UInt64(try read(UInt16.self, key)))
        case 3: return .signed(Int64(try read(Int16.self, key)))
        case 4: return .unsigned(UInt64(try read(UInt32.self, key)))
        case 5: return .signed(Int64(try read(Int32.self, key)))
        case 6: return .float32(try read(Float.self, key))
        case 7: return .bool(try bool(key))
        case 8: return .string(try string("'\(key)'"))
        case 9: return .array(try array(of: key, depth: 0))
        case 10: return .unsigned(try read(UInt64.self, key))
        case 11: return .signed(try read(Int64.self, key))
        case 12: return .float64(try read(Double.self, key))
        default: throw malformed("'\(key)' has the unknown type \(type)")
        }
    }

    private mutating func bool(_ key: String) throws -> Bool {
        let byte = try read(UInt8.self, key)
        guard byte < 2 else { throw malformed("'\(key)' is a boolean of value \(byte)") }
        return byte == 1
    }

    private mutating func array(of key: String, depth: Int) throws -> GGUFArray {
        guard depth < 4 else { throw malformed("'\(key)' nests arrays deeper than 4") }
        let type = try read(UInt32.self, "the element type of '\(key)'")
        let sizes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8]
        guard type < sizes.count else { throw malformed("'\(key)' has elements of the unknown type \(type)") }
        let count = try count(minimumSize: sizes[Int(type)], "the length of '\(key)'")
        switch type {
        case 0: return .unsigned(try elements(count, key) { UInt64($0 as UInt8) })
        case 1: return .signed(try elements(count, key) { Int64($0 as Int8) })
        case 2: return .unsigned(try elements(count, key) { UInt64($0 as UInt16) })
        case 3: return .signed(try elements(count, key) { Int64($0 as Int16) })
        case 4: return .unsigned(try elements(count, key) { UInt64($0 as UInt32) })
        case 5: return .signed(try elements(count, key) { Int64($0 as Int32) })
        case 6: return .float32(try elements(count, key) { $0 as Float })
        case 10: return .unsigned(try elements(count, key) { $0 as UInt64 })
        case 11: return .signed(try elements(count, key) { $0 as Int64 })
        case 12: return .float64(try elements(count, key) { $0 as Double })
        case 7:
            var values: [Bool] = []
            for _ in 0..<count { values.append(try bool(key)) }
            return .bool(values)
        case 8:
            var values: [[UInt8]] = []
            values.reserveCapacity(count)
            for _ in 0..<count { values.append(try string("'\(key)'")) }
            return .string(values)
        default:
            var values: [GGUFArray] = []
            for _ in 0..<count { values.append(try array(of: key, depth: depth + 1)) }
            return .array(values)
        }
    }

    private mutating func elements<Raw: BitwiseCopyable, Value>(
        _ count: Int, _ key: String, _ convert: (Raw) -> Value
    ) throws -> [Value] {
        let size = MemoryLayout<Raw>.size
        let bytes = try file.slice(offset, count * size, of: key)
        offset += count * size
        return (0..<count).map { convert(bytes.loadUnaligned(fromByteOffset: $0 * size, as: Raw.self)) }
    }
}
