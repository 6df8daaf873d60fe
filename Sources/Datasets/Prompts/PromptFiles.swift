/// Rows of one or more files with verl's columns, read from disk when asked for. Memory: 16 bytes a row.
public struct PromptFiles: PromptSource {
    public let files: [RecordFile]
    public let columns: PromptColumns
    /// How many rows have each column that nothing here knows, by name.
    public let otherColumnCounts: [String: Int]
    /// Of all rows in their order, whatever the files are called.
    public let fingerprint: UInt64?
    /// The index of each file's first row, and the count of all rows at the end.
    private let starts: [Int]

    /// Opens the files and checks every row on all cores, so that a bad one is found before training and not in its middle.
    /// - Throws: `DatasetError`: `.unreadable`, `.malformedRow`, `.badColumn` with file, line and column; `.empty`
    ///   when a file has no row; `.arrowMissing` for a Parquet file.
    public init(paths: [String], columns: PromptColumns = PromptColumns()) throws {
        guard !paths.isEmpty else { throw DatasetError(.empty, "no file is named; set data.train_files") }
        var others: [String: Int] = [:]
        var digest: UInt64 = 0
        files = try paths.map { path in
            let file = try RecordFile(path: path, columns: columns.names)
            guard file.count > 0 else { throw DatasetError(.empty, "'\(path)' has no rows") }
            for name in file.columnsNotRead { others[name, default: 0] += file.count }
            let checked = try Parallel.map(file.count, grain: 256) { index in
                let (object, digest) = try file.objectAndDigest(at: index)
                let row = try columns.row(object, origin: file.origin(at: index))
                return (digest: digest, others: row.otherColumns.members.map(\.name))
            }
            for row in checked {
                digest = ByteDigest.fold(digest ^ row.digest)
                for name in row.others { others[name, default: 0] += 1 }
            }
            return file
        }
        self.columns = columns
        fingerprint = digest
        otherColumnCounts = others
        starts = files.reduce(into: [0]) { $0.append($0.last! + $1.count) }
    }

    public var count: Int { starts.last! }

    /// The rows of a file, by its place among the files.
    public func rows(ofFile index: Int) -> Range<Int> { starts[index]..<starts[index + 1] }

    public func row(at index: Int) throws -> PromptRow {
        precondition(index >= 0 && index < count, "row \(index) of \(count)")
        var (low, high) = (0, files.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= index { low = middle } else { high = middle }
        }
        let (file, place) = (files[low], index - starts[low])
        return try columns.row(file.object(at: place), origin: file.origin(at: place))
    }
}
