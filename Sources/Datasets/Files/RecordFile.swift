#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A file's rows in any order. Keeps where they are, not the rows: 16 bytes a row.
///
/// The rows of a Parquet file cannot be reached one by one: they are copied, as JSON and with the wanted columns only, to
/// a nameless file in the folder for temporary files, and are read from there.
public final class RecordFile: Sendable {
    /// A row of more bytes is refused.
    public static let maximumRecordLength = 256 << 20

    private struct Span {
        let offset: Int64
        let length: Int32
        /// Counted from 1: the line that it begins on, or the row of a Parquet file.
        let number: Int32
    }

    public let path: String
    public let format: RecordFormat
    /// Columns of a Parquet file that were not asked for.
    public let columnsNotRead: [String]
    private let file: OpenFile
    private let decoder: RecordDecoder
    private let spans: [Span]

    /// Opens the file and finds its rows, without a look into them.
    /// - Parameter columns: the columns of a Parquet file that are needed; nil for all.
    /// - Throws: `DatasetError`: `.unreadable`, `.malformedRow` where rows cannot be told apart, `.arrowMissing`.
    public init(path: String, columns: [String]? = nil) throws {
        let reader = try RecordReader(path: path)
        var found: [Span] = []
        var decoder = RecordDecoder.json
        func add(_ record: ScannedRecord, at offset: Int64) throws {
            guard let number = Int32(exactly: record.line) else {
                throw DatasetError(.unreadable, "'\(path)' has more than \(Int32.max) lines: split it")
            }
            found.append(Span(offset: offset, length: Int32(record.bytes.count), number: number))
        }
        if reader.format == .parquet {
            let parquet = try ParquetFile(path: path)
            columnsNotRead = parquet.summary.columns.filter { columns?.contains($0) == false }
            var spill = try SpillFile()
            try parquet.forEachRow(columns: columns) { bytes, row in
                try add(ScannedRecord(bytes: bytes, offset: 0, line: row), at: spill.append(bytes))
                return true
            }
            file = try spill.finish()
        } else {
            columnsNotRead = []
            file = try OpenFile(path: path)
            try reader.forEachRecord(in: file) { record, itsDecoder in
                if found.isEmpty { decoder = itsDecoder }
                try add(record, at: record.offset)
                return true
            }
        }
        self.path = path
        self.decoder = decoder
        format = reader.format
        spans = found
    }

    public var count: Int { spans.count }

    public func origin(at index: Int) -> RowOrigin { RowOrigin(source: path, line: Int(spans[index].number)) }

    /// - Throws: `DatasetError.unreadable` when the file got shorter since it was opened, `.malformedRow`.
    public func object(at index: Int) throws -> JSONObject {
        try withBytes(at: index) { try decoder.object($0, origin: origin(at: index)) }
    }

    /// A row with a digest of its bytes, which tells other data from the same and is no defence against an enemy.
    public func objectAndDigest(at index: Int) throws -> (object: JSONObject, digest: UInt64) {
        try withBytes(at: index) { (try decoder.object($0, origin: origin(at: index)), ByteDigest.of($0)) }
    }

    private func withBytes<Result>(
        at index: Int, _ body: (UnsafeBufferPointer<UInt8>) throws -> Result
    ) throws -> Result {
        let span = spans[index]
        return try withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Int(span.length)) { buffer in
            var filled = 0
            while filled < buffer.count {
                let destination = UnsafeMutableRawPointer(buffer.baseAddress! + filled)
                let got = pread(
                    file.descriptor, destination, buffer.count - filled, off_t(span.offset) + off_t(filled))
                if got < 0 && errno == EINTR { continue }
                guard got > 0 else {
                    let reason = got == 0 ? "the file got shorter since it was opened" : OpenFile.systemMessage()
                    throw DatasetError(.unreadable, "cannot read the row: \(reason)", origin: origin(at: index))
                }
                filled += got
            }
            return try body(UnsafeBufferPointer(buffer))
        }
    }
}

/// A 64-bit digest that tells other data from the same; not against an adversary.
enum ByteDigest {
    static func of(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        let raw = UnsafeRawBufferPointer(bytes)
        var state = UInt64(raw.count) &* 0x9E37_79B9_7F4A_7C15
        var position = 0
        while position + 8 <= raw.count {
            state = fold(state ^ raw.loadUnaligned(fromByteOffset: position, as: UInt64.self))
            position += 8
        }
        var rest: UInt64 = 0
        while position < raw.count {
            rest = rest << 8 | UInt64(raw[position])
            position += 1
        }
        return fold(state ^ rest)
    }

    /// The two halves of a full product, which depend on every bit.
    static func fold(_ word: UInt64) -> UInt64 {
        let product = (word ^ 0xA076_1D64_78BD_642F).multipliedFullWidth(by: 0xE703_7ED1_A0B4_28DB)
        return product.high ^ product.low
    }
}
