internal import CArrow

/// What the footer of a Parquet file says.
public struct ParquetSummary: Hashable, Sendable {
    public let rows: Int
    public let rowGroups: Int
    /// The names of the top-level columns, in the file's order.
    public let columns: [String]
}

/// A Parquet file, read row group by row group in batches of a bounded size.
final class ParquetFile {
    let path: String
    let summary: ParquetSummary
    private let library: ArrowLibrary
    private let reader: OpaquePointer
    private let bytesPerRow: Int

    /// About how many bytes of decoded columns a batch has.
    private static let batchBytes = 16 << 20

    /// - Throws: `DatasetError.unreadable` that names the file, `.arrowMissing`.
    init(path: String) throws {
        // Arrow's own words for a file that is not there do not say which.
        _ = try OpenFile(path: path)
        let library = try ArrowLibrary.load()
        func call(
            _ body: (UnsafePointer<fp_api>, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Int32
        ) throws {
            try library.call("cannot read the Parquet file '\(path)'", body)
        }
        var opened: OpaquePointer?
        try call { $0.pointee.open(path, &opened, $1) }
        guard let reader = opened else { throw DatasetError(.unreadable, "'\(path)' was not opened") }
        do {
            var counts = fp_summary()
            try call { $0.pointee.summary(reader, &counts, $1) }
            var schema = ArrowSchema()
            try call { $0.pointee.schema(reader, &schema, $1) }
            defer { schema.release?(&schema) }
            summary = ParquetSummary(
                rows: Int(counts.rows), rowGroups: Int(counts.row_groups), columns: try schema.childNames(path: path))
            bytesPerRow = Int(counts.bytes) / max(1, Int(counts.rows))
        } catch {
            library.api.pointee.close(reader)
            throw error
        }
        self.path = path
        self.library = library
        self.reader = reader
    }

    deinit { library.api.pointee.close(reader) }

    /// Every row as a line of JSON without its end, and its number from 1, while `body` gives true.
    /// - Parameter columns: those of the top level to read, where the file has them; nil for all.
    /// - Throws: `DatasetError.unreadable` that names the file, `.badColumn` for a type that JSON has no form for.
    func forEachRow(columns: [String]?, _ body: (UnsafeBufferPointer<UInt8>, Int) throws -> Bool) throws {
        let wanted = summary.columns.indices.filter { columns?.contains(summary.columns[$0]) ?? true }.map(Int32.init)
        let batchRows = Int64(min(8192, max(1, Self.batchBytes / max(1, bytesPerRow))))
        var schema = ArrowSchema()
        try call { $0.pointee.start(reader, wanted, Int32(wanted.count), batchRows, &schema, $1) }
        defer { schema.release?(&schema) }
        let type = try ArrowType(schema, path: path, column: "")
        var row = 0
        var text = JSONBytes()
        while true {
            var array = ArrowArray()
            var hasBatch = false
            try call { $0.pointee.next(reader, &array, &hasBatch, $1) }
            guard hasBatch else { break }
            defer { array.release?(&array) }
            let rows = try ArrowColumn(type, array, path: path)
            for index in 0..<rows.length {
                row += 1
                text.removeAll()
                do {
                    try rows.write(index, to: &text)
                } catch let error as DatasetError {
                    throw DatasetError(
                        error.code, error.message, origin: RowOrigin(source: path, line: row), column: error.column)
                }
                guard text.bytes.count <= RecordFile.maximumRecordLength else {
                    throw DatasetError(
                        .malformedRow, "the row is longer than \(RecordFile.maximumRecordLength >> 20) MiB",
                        origin: RowOrigin(source: path, line: row))
                }
                if try !text.bytes.withUnsafeBufferPointer({ try body($0, row) }) { return }
            }
        }
        guard row == summary.rows else {
            throw DatasetError(
                .unreadable, "'\(path)' has \(row) rows, and its footer says \(summary.rows): is it damaged?")
        }
    }

    private func call(
        _ body: (UnsafePointer<fp_api>, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Int32
    ) throws {
        try library.call("cannot read the Parquet file '\(path)'", body)
    }
}

extension ArrowSchema {
    func child(_ index: Int) -> ArrowSchema? { children?[index]?.pointee }

    /// The text of a C string that must be UTF-8.
    static func text(_ characters: UnsafePointer<CChar>?, path: String) throws -> String {
        guard let characters else { return "" }
        guard let text = String(validatingCString: characters) else {
            throw DatasetError(.unreadable, "'\(path)' has a column whose name is not UTF-8")
        }
        return text
    }

    func childNames(path: String) throws -> [String] {
        try (0..<Int(n_children)).map { try Self.text(child($0)?.name, path: path) }
    }
}
