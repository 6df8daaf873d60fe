/// Rows of one or more JSONL files with verl's columns, read from disk when asked for.
public struct JSONLinesDataset: PromptSource {
    public let files: [JSONLinesFile]
    public let columns: PromptColumns
    /// How many rows have each column that nothing here knows, by name.
    public let otherColumnCounts: [String: Int]
    /// The index of each file's first row, and the count of all rows at the end.
    private let starts: [Int]

    /// Opens the files and checks every row, so that a bad one is found before training and not in its middle.
    /// - Throws: `DatasetError`: `.unreadable`, `.malformedRow`, `.badColumn` with file, line and column; `.empty`
    ///   when a file has no row.
    public init(paths: [String], columns: PromptColumns = PromptColumns()) throws {
        guard !paths.isEmpty else { throw DatasetError(.empty, "no file is named; set data.train_files") }
        var others: [String: Int] = [:]
        files = try paths.map { path in
            let file = try JSONLinesFile(path: path) { line, origin in
                for member in try columns.row(line, origin: origin).otherColumns.members {
                    others[member.name, default: 0] += 1
                }
            }
            guard file.count > 0 else { throw DatasetError(.empty, "'\(path)' has no rows") }
            return file
        }
        self.columns = columns
        otherColumnCounts = others
        starts = files.reduce(into: [0]) { $0.append($0.last! + $1.count) }
    }

    public var count: Int { starts.last! }

    public func row(at index: Int) throws -> PromptRow {
        precondition(index >= 0 && index < count, "row \(index) of \(count)")
        var (low, high) = (0, files.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= index { low = middle } else { high = middle }
        }
        return try files[low].withLine(at: index - starts[low]) { try columns.row($0, origin: $1) }
    }
}
