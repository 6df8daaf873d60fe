/// Rows of one or more files with verl's columns, read from disk when asked for. Memory: 16 bytes a row.
public struct PromptFiles: PromptSource {
    public let columns: PromptColumns
    /// How many rows have each column that nothing here knows, by name.
    public let otherColumnCounts: [String: Int]
    private let rows: RecordFiles

    public var files: [RecordFile] { rows.files }
    public var fingerprint: UInt64? { rows.fingerprint }
    public var count: Int { rows.count }

    /// Opens the files and checks every row on all cores, so that a bad one is found before training and not in its middle.
    /// - Throws: what ``RecordFiles`` does, and `DatasetError.badColumn` with file, line and column.
    public init(paths: [String], columns: PromptColumns = PromptColumns()) throws {
        var others: [String: Int] = [:]
        rows = try RecordFiles(paths: paths, columns: columns.names) { object, origin in
            try columns.row(object, origin: origin).otherColumns.members.map(\.name)
        } note: { names in
            for name in names { others[name, default: 0] += 1 }
        }
        for file in rows.files { for name in file.columnsNotRead { others[name, default: 0] += file.count } }
        self.columns = columns
        otherColumnCounts = others
    }

    /// The rows of a file, by its place among the files.
    public func rows(ofFile index: Int) -> Range<Int> { rows.rows(ofFile: index) }

    public func row(at index: Int) throws -> PromptRow {
        let (object, origin) = try rows.row(at: index)
        return try columns.row(object, origin: origin)
    }
}
