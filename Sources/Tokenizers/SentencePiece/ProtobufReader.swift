/// Reads the fields of one protobuf message, every length checked against what is there.
///
/// Only the wire format: who calls knows the numbers and the types.
struct ProtobufReader {
    enum Value {
        case varint(UInt64)
        case fixed32(UInt32)
        case fixed64
        /// A string, bytes or a message: a range of the whole file.
        case bytes(Range<Int>)
    }

    struct Field {
        let number: Int
        let value: Value
        let offset: Int
    }

    private let bytes: [UInt8]
    private var position: Int
    private let end: Int
    private let place: String

    /// - Parameter range: where the message lies in `bytes`.
    init(_ bytes: [UInt8], _ range: Range<Int>, at place: String) {
        self.bytes = bytes
        position = range.lowerBound
        end = range.upperBound
        self.place = place
    }

    /// The next field, nil at the end.
    mutating func next() throws -> Field? {
        guard position < end else { return nil }
        let offset = position
        let key = try varint()
        guard key >> 3 > 0, key >> 3 < 1 << 29 else { throw failure("a field number of \(key >> 3)", offset) }
        let value: Value
        switch key & 7 {
        case 0: value = .varint(try varint())
        case 1:
            try skip(8)
            value = .fixed64
        case 2:
            let length = try varint()
            guard length <= UInt64(end - position) else {
                throw failure("\(length) bytes announced and \(end - position) there", offset)
            }
            value = .bytes(position..<position + Int(length))
            position += Int(length)
        case 5:
            let start = position
            try skip(4)
            value = .fixed32((0..<4).reduce(0) { $0 | UInt32(bytes[start + $1]) << UInt32($1 * 8) })
        case let type: throw failure("wire type \(type)", offset)
        }
        return Field(number: Int(key >> 3), value: value, offset: offset)
    }

    private mutating func skip(_ count: Int) throws {
        guard count <= end - position else { throw failure("the file is cut", position) }
        position += count
    }

    private mutating func varint() throws -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        let start = position
        while true {
            guard position < end, shift < 64 else { throw failure("a broken number", start) }
            let byte = bytes[position]
            position += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 { return value }
            shift += 7
        }
    }

    func failure(_ what: String, _ offset: Int) -> TokenizerError {
        TokenizerError(.invalidModel, "\(place): no SentencePiece model: \(what) at byte \(offset)")
    }
}

extension ProtobufReader.Field {
    func bool(_ name: String) throws -> Bool { try integer(name) != 0 }

    func integer(_ name: String) throws -> Int {
        guard case .varint(let value) = value else { throw wrongType(name, "a number") }
        // Negative numbers stand as 64-bit two's complements.
        return Int(truncatingIfNeeded: value)
    }

    func float(_ name: String) throws -> Float {
        guard case .fixed32(let bits) = value else { throw wrongType(name, "a 32-bit float") }
        return Float(bitPattern: bits)
    }

    func range(_ name: String) throws -> Range<Int> {
        guard case .bytes(let range) = value else { throw wrongType(name, "text or a message") }
        return range
    }

    private func wrongType(_ name: String, _ expected: String) -> TokenizerError {
        TokenizerError(.invalidModel, "\(name) at byte \(offset): expected \(expected)")
    }
}
