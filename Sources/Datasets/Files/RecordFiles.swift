/// The rows of several files as one list, read from disk when asked for. Memory: 16 bytes a row.
public struct RecordFiles: Sendable {
    public let files: [RecordFile]
    /// Of all rows in their order, whatever the files are called.
    public let fingerprint: UInt64
    /// The index of each file's first row, and the count of all rows at the end.
    private let starts: [Int]

    /// Opens the files and checks every row on all cores, so that a bad one is found before training and not in its middle.
    /// - Parameters:
    ///   - columns: the columns of a Parquet file that are needed.
    ///   - check: is given every row, and what it gives is handed to `note`, in the rows' order.
    /// - Throws: `DatasetError`: `.unreadable`, `.malformedRow`, `.empty` when a file has no row, `.arrowMissing` for a
    ///   Parquet file; and what `check` throws, of several errors in a file the first row's.
    public init<Checked: Sendable>(
        paths: [String], columns: [String], check: @Sendable (JSONObject, RowOrigin) throws -> Checked,
        note: (Checked) -> Void = { _ in }
    ) throws {
        guard !paths.isEmpty else { throw DatasetError(.empty, "no file is named; set data.train_files") }
        var digest: UInt64 = 0
        files = try paths.map { path in
            let file = try RecordFile(path: path, columns: columns)
            guard file.count > 0 else { throw DatasetError(.empty, "'\(path)' has no rows") }
            let checked = try Parallel.map(file.count, grain: 256) { index in
                let (object, digest) = try file.objectAndDigest(at: index)
                return (digest: digest, value: try check(object, file.origin(at: index)))
            }
            for row in checked {
                digest = ByteDigest.fold(digest ^ row.digest)
                note(row.value)
            }
            return file
        }
        fingerprint = digest
        starts = files.reduce(into: [0]) { $0.append($0.last! + $1.count) }
    }

    public var count: Int { starts.last! }

    /// The rows of a file, by its place among the files.
    public func rows(ofFile index: Int) -> Range<Int> { starts[index]..<starts[index + 1] }

    /// - Throws: `DatasetError` when the row cannot be read any more.
    public func row(at index: Int) throws -> (object: JSONObject, origin: RowOrigin) {
        let (file, place) = place(of: index)
        return (try file.object(at: place), file.origin(at: place))
    }

    public func origin(at index: Int) -> RowOrigin {
        let (file, place) = place(of: index)
        return file.origin(at: place)
    }

    private func place(of index: Int) -> (file: RecordFile, place: Int) {
        precondition(index >= 0 && index < count, "row \(index) of \(count)")
        var (low, high) = (0, files.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= index { low = middle } else { high = middle }
        }
        return (files[low], index - starts[low])
    }
}
