import Foundation

/// Rows of numbers in one run of memory, which travel fast and exactly, not-a-number included.
public struct PackedRows<Element: BitwiseCopyable & Sendable>: Sendable, Codable {
    /// Where each row begins, and where the last one ends.
    private let starts: [Int]
    private let elements: [Element]

    public init(_ rows: [[Element]]) {
        var starts = [0]
        starts.reserveCapacity(rows.count + 1)
        for row in rows { starts.append(starts[starts.count - 1] + row.count) }
        var elements: [Element] = []
        elements.reserveCapacity(starts[rows.count])
        for row in rows { elements.append(contentsOf: row) }
        self.starts = starts
        self.elements = elements
    }

    public var count: Int { starts.count - 1 }
    /// The bytes of the elements.
    public var byteCount: Int { elements.count * MemoryLayout<Element>.stride }
    /// Of the elements and where rows begin: finds differences, not malice.
    public var digest: UInt64 {
        starts.withUnsafeBytes(RowsReference.digest) ^ elements.withUnsafeBytes(RowsReference.digest) &* 31
    }
    public subscript(row: Int) -> ArraySlice<Element> { elements[starts[row]..<starts[row + 1]] }
    public var rows: [[Element]] { (0..<count).map { Array(self[$0]) } }
    public var lengths: [Int] { (0..<count).map { starts[$0 + 1] - starts[$0] } }

    private enum CodingKeys: String, CodingKey { case lengths, elements }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(ByteBlob(lengths.map { Int64($0) }), forKey: .lengths)
        try container.encode(ByteBlob(elements), forKey: .elements)
    }

    /// - Throws: `DecodingError` where lengths and elements do not fit together.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        elements = try container.decode(ByteBlob<Element>.self, forKey: .elements).values
        var starts = [0]
        for length in try container.decode(ByteBlob<Int64>.self, forKey: .lengths).values {
            let last = starts[starts.count - 1]
            guard length >= 0, length <= Int64(elements.count - last) else {
                throw DecodingError.dataCorruptedError(
                    forKey: .lengths, in: container, debugDescription: "rows are longer than their elements")
            }
            starts.append(last + Int(length))
        }
        guard starts[starts.count - 1] == elements.count else {
            throw DecodingError.dataCorruptedError(
                forKey: .elements, in: container, debugDescription: "more elements than the rows have")
        }
        self.starts = starts
    }
}

extension PackedRows: Equatable where Element: Equatable {}
extension PackedRows: Hashable where Element: Hashable {}

/// Numbers that are encoded as their bytes: beside the text where ``CallCoder`` encodes, else as Base64.
struct ByteBlob<Element: BitwiseCopyable & Sendable>: Codable {
    let values: [Element]
    init(_ values: [Element]) { self.values = values }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let blobs = encoder.userInfo[Blobs.key] as? Blobs {
            try container.encode(values.withUnsafeBytes { blobs.add(Array($0)) })
        } else {
            try container.encode(values.withUnsafeBytes { Data($0) })
        }
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        func corrupted(_ what: String) -> DecodingError {
            DecodingError.dataCorruptedError(in: container, debugDescription: what)
        }
        if let blobs = decoder.userInfo[Blobs.key] as? Blobs {
            let number = try container.decode(Int.self)
            guard let bytes = blobs[number] else { throw corrupted("there is no block of bytes \(number)") }
            guard let values = bytes.withUnsafeBytes(Self.values) else { throw corrupted("\(bytes.count) bytes") }
            self.values = values
        } else {
            let data = try container.decode(Data.self)
            guard let values = data.withUnsafeBytes(Self.values) else { throw corrupted("\(data.count) bytes") }
            self.values = values
        }
    }

    private static func values(_ bytes: UnsafeRawBufferPointer) -> [Element]? {
        let size = MemoryLayout<Element>.stride
        guard bytes.count % size == 0 else { return nil }
        return Array(unsafeUninitializedCapacity: bytes.count / size) { buffer, count in
            UnsafeMutableRawBufferPointer(buffer).copyMemory(from: bytes)
            count = bytes.count / size
        }
    }
}
