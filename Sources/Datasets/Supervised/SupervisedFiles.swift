/// Rows of supervised data in one or more files, read from disk when asked for.
public struct SupervisedFiles: Sendable {
    public let columns: SupervisedColumns
    private let files: RecordFiles

    public var count: Int { files.count }
    public var fingerprint: UInt64 { files.fingerprint }

    /// Opens the files and checks every row on all cores.
    /// - Throws: what ``RecordFiles`` does, and `DatasetError.badColumn` with file, line and column.
    public init(paths: [String], columns: SupervisedColumns) throws {
        self.columns = columns
        files = try RecordFiles(paths: paths, columns: columns.names) { object, origin in
            _ = try columns.row(object, origin: origin)
        }
    }

    public func row(at index: Int) throws -> SupervisedRow {
        let (object, origin) = try files.row(at: index)
        return try columns.row(object, origin: origin)
    }

    public func origin(at index: Int) -> RowOrigin { files.origin(at: index) }
}
