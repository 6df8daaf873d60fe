import Foundation
import Synchronization

/// Calls and answers as bytes: JSON for what is small and has a shape, blocks of bytes beside it for rows of numbers.
///
///     4 bytes  format (1)                 all numbers little-endian
///     4 bytes  n, the number of blocks
///     8 bytes  length of the JSON, then of each block
///     …        the JSON, then the blocks
public enum CallCoder {
    private static let format: UInt32 = 1
    /// More blocks than any call has.
    private static let mostBlocks = 1 << 16

    public static func encode(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder(), blobs = Blobs()
        encoder.userInfo[Blobs.key] = blobs
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        let text = try encoder.encode(value), blocks = blobs.all
        var bytes: [UInt8] = []
        bytes.reserveCapacity(16 + 8 * blocks.count + text.count + blocks.reduce(0) { $0 + $1.count })
        func append(_ number: some FixedWidthInteger) {
            withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
        }
        append(format)
        append(UInt32(blocks.count))
        append(UInt64(text.count))
        for block in blocks { append(UInt64(block.count)) }
        bytes.append(contentsOf: text)
        for block in blocks { bytes.append(contentsOf: block) }
        return bytes
    }

    /// - Throws: `DecodingError`, also for bytes that are cut short or no call at all.
    public static func decode<Value: Decodable>(_ type: Value.Type, from bytes: [UInt8]) throws -> Value {
        func corrupted(_ what: String) -> DecodingError {
            .dataCorrupted(.init(codingPath: [], debugDescription: "not a \(type): \(what)"))
        }
        func number<Number: FixedWidthInteger>(_ type: Number.Type, at place: Int) throws -> Number {
            guard place + MemoryLayout<Number>.size <= bytes.count else { throw corrupted("it is cut short") }
            return bytes.withUnsafeBytes { Number(littleEndian: $0.loadUnaligned(fromByteOffset: place, as: type)) }
        }
        guard try number(UInt32.self, at: 0) == format else { throw corrupted("another format") }
        let count = Int(try number(UInt32.self, at: 4))
        guard count <= mostBlocks else { throw corrupted("\(count) blocks") }
        var start = 8 * (count + 2)
        var parts: [Range<Int>] = []
        for index in 0...count {
            let length = try number(UInt64.self, at: 8 + 8 * index)
            guard length <= UInt64(bytes.count), start + Int(length) <= bytes.count else {
                throw corrupted("it is cut short")
            }
            parts.append(start..<start + Int(length))
            start += Int(length)
        }
        guard start == bytes.count else { throw corrupted("\(bytes.count - start) bytes too many") }
        let decoder = JSONDecoder()
        decoder.userInfo[Blobs.key] = Blobs(parts.dropFirst().map { bytes[$0] })
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return try decoder.decode(type, from: Data(bytes[parts[0]]))
    }
}

/// Blocks of bytes that go beside the JSON.
final class Blobs: Sendable {
    private let blocks: Mutex<[ArraySlice<UInt8>]>

    init(_ blocks: [ArraySlice<UInt8>] = []) { self.blocks = Mutex(blocks) }

    static var key: CodingUserInfoKey {
        guard let key = CodingUserInfoKey(rawValue: "fledge.blobs") else { preconditionFailure("a key without a name") }
        return key
    }

    var all: [ArraySlice<UInt8>] { blocks.withLock { $0 } }

    /// - Returns: its number.
    func add(_ block: [UInt8]) -> Int {
        blocks.withLock { blocks in
            blocks.append(block[...])
            return blocks.count - 1
        }
    }

    subscript(number: Int) -> ArraySlice<UInt8>? {
        blocks.withLock { $0.indices.contains(number) ? $0[number] : nil }
    }
}
