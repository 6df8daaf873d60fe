internal import CArrow

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Writes the rows of files into one file of another format. The result appears whole, or not at all.
public enum RecordConverter {
    /// - Parameters:
    ///   - columns: the columns to keep, in this order; nil for all. Rows without one of them go without it.
    ///   - limit: the most rows to write.
    /// - Returns: how many rows were written.
    /// - Throws: `DatasetError`: also `.badColumn` where the format has no form for a value, `.badSetting` for a format that
    ///   cannot be told from the name, `.diskFull`.
    @discardableResult
    public static func convert(
        _ paths: [String], to output: String, columns: [String]? = nil, limit: Int = .max
    ) throws -> Int {
        guard let format = RecordFormat(extensionOf: output) else {
            throw DatasetError(
                .badSetting, "'\(output)' does not say what to write: end it with .parquet, .jsonl, .json, .csv or .tsv"
            )
        }
        let input = RowStream(paths: paths, columns: columns, limit: limit)
        // A name of its own beside the result, so that two conversions at once cannot mix.
        let temporary = "\(output).\(getpid()).tmp"
        defer { unlink(temporary) }
        let count: Int
        switch format {
        case .jsonLines: count = try writeJSONLines(input, to: temporary)
        case .json: count = try writeJSON(input, to: temporary)
        case .csv, .tsv: count = try CSVWriter(delimiter: format.delimiter ?? 0x2C).write(input, to: temporary)
        case .parquet: count = try writeParquet(input, to: temporary)
        }
        guard rename(temporary, output) == 0 else {
            throw DatasetError(.unreadable, "cannot write '\(output)': \(OpenFile.systemMessage())")
        }
        return count
    }

    /// Writes rows that are in memory into one file, whole or not at all; what stood there is replaced.
    /// - Throws: as ``convert(_:to:columns:limit:)``.
    static func write(_ rows: [JSONObject], to output: String) throws {
        let lines = "\(output).\(getpid()).rows.jsonl"
        defer { unlink(lines) }
        var file = try OutputFile(path: lines)
        for row in rows { try file.append(JSONValue.object(row).text + "\n") }
        try file.close()
        try convert([lines], to: output)
    }

    static func fileExists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    private static func writeJSONLines(_ input: RowStream, to path: String) throws -> Int {
        var file = try OutputFile(path: path)
        let count = try input.forEach { object, _ in try file.append(JSONValue.object(object).text + "\n") }
        try file.close()
        return count
    }

    private static func writeJSON(_ input: RowStream, to path: String) throws -> Int {
        var file = try OutputFile(path: path)
        var separator = "[\n"
        let count = try input.forEach { object, _ in
            try file.append(separator + JSONValue.object(object).text)
            separator = ",\n"
        }
        try file.append(count == 0 ? "[]\n" : "\n]\n")
        try file.close()
        return count
    }

    /// By way of a JSON Lines file in the folder for temporary files: Arrow reads and types that one.
    private static func writeParquet(_ input: RowStream, to path: String) throws -> Int {
        let library = try ArrowLibrary.load()
        var type = ColumnType.unknown
        let lines = "\(path).jsonl"
        defer { unlink(lines) }
        var file = try OutputFile(path: lines)
        let count = try input.forEach { object, origin in
            try type.widen(to: .object(object), column: "", origin: origin)
            try file.append(JSONValue.object(object).text + "\n")
        }
        try file.close()
        guard case .object(let members) = type, !members.isEmpty else {
            throw DatasetError(.empty, "there are no rows, and Parquet needs the types of its columns")
        }
        try library.call("cannot write Parquet") {
            $0.pointee.write_json(lines, type.text, path, Int64(rowGroupBytes), $1)
        }
        return count
    }

    private static let rowGroupBytes = 64 << 20
}

/// The rows of files, as often as wanted.
struct RowStream {
    let paths: [String]
    let columns: [String]?
    let limit: Int

    @discardableResult
    func forEach(_ body: (JSONObject, RowOrigin) throws -> Void) throws -> Int {
        var count = 0
        for path in paths where count < limit {
            try RecordReader(path: path).forEach(columns: columns) { object, origin in
                try body(picked(object), origin)
                count += 1
                return count < limit
            }
        }
        return count
    }

    private func picked(_ object: JSONObject) -> JSONObject {
        guard let columns else { return object }
        return JSONObject(columns.compactMap { name in object[name].map { .init(name: name, value: $0) } })
    }
}

/// A file that is written through a buffer.
struct OutputFile: ~Copyable {
    private let file: OpenFile
    private var buffer: [UInt8] = []

    init(path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else {
            throw DatasetError(.unreadable, "cannot write '\(path)': \(OpenFile.systemMessage())")
        }
        file = OpenFile(path: path, descriptor: descriptor)
    }

    mutating func append(_ text: String) throws {
        buffer += text.utf8
        if buffer.count > 1 << 20 { try flush() }
    }

    /// Writes what is left, to the disk.
    mutating func close() throws {
        try flush()
        guard fsync(file.descriptor) == 0 || errno == EINVAL || errno == EROFS else { throw failure() }
    }

    private func failure() -> DatasetError {
        DatasetError(
            errno == ENOSPC || errno == EDQUOT ? .diskFull : .unreadable,
            "cannot write '\(file.path)': \(OpenFile.systemMessage())")
    }

    private mutating func flush() throws {
        let descriptor = file.descriptor
        let isWhole = buffer.withUnsafeBytes { bytes in
            var done = 0
            while done < bytes.count {
                let got = write(descriptor, bytes.baseAddress! + done, bytes.count - done)
                if got < 0 && errno == EINTR { continue }
                if got <= 0 { return false }
                done += got
            }
            return true
        }
        guard isWhole else { throw failure() }
        buffer.removeAll(keepingCapacity: true)
    }
}
