#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Reads the rows of a file in their order, whatever its format: streamed, with memory for a part of the file only.
public struct RecordReader: Sendable {
    public let path: String
    public let format: RecordFormat

    /// Opens the file to see what it is.
    /// - Throws: `DatasetError.unreadable`.
    public init(path: String) throws {
        self.path = path
        let file = try OpenFile(path: path)
        let head = try file.head(count: 64)
        format = try head.withUnsafeBufferPointer { try RecordFormat.detect(path: path, head: $0) }
    }

    /// Every row as an object, while `body` gives true.
    /// - Parameter columns: the columns of a Parquet file that are read, those that it has; nil for all. Other formats
    ///   always give all.
    /// - Throws: `DatasetError`, and what `body` throws.
    public func forEach(columns: [String]? = nil, _ body: (JSONObject, RowOrigin) throws -> Bool) throws {
        try forEachRecord(columns: columns) { record, decoder in
            let origin = RowOrigin(source: path, line: record.line)
            return try body(decoder.object(record.bytes, origin: origin), origin)
        }
    }

    /// The columns of a Parquet file, from its footer; nil for another format.
    public func parquetSummary() throws -> ParquetSummary? {
        format == .parquet ? try ParquetFile(path: path).summary : nil
    }

    /// Every record as bytes. Those of a Parquet file have no place in it: their offset is 0.
    func forEachRecord(
        columns: [String]? = nil, in file: OpenFile? = nil, _ body: (ScannedRecord, RecordDecoder) throws -> Bool
    ) throws {
        if format == .parquet {
            try ParquetFile(path: path).forEachRow(columns: columns) { bytes, row in
                try body(ScannedRecord(bytes: bytes, offset: 0, line: row), .json)
            }
            return
        }
        let file = try file ?? OpenFile(path: path)
        func scan(_ splitter: some RecordSplitter, _ body: (ScannedRecord) throws -> Bool) throws {
            var scanner = RecordScanner(descriptor: file.descriptor, path: path, splitter: splitter)
            try scanner.forEach(body)
        }
        switch format {
        case .json: try scan(JSONArraySplitter()) { try body($0, .json) }
        case .csv, .tsv:
            let delimiter = format.delimiter ?? UInt8(ascii: ",")
            var header: CSVHeader?
            try scan(CSVSplitter(delimiter: delimiter)) { record in
                if let header { return try body(record, .csv(header)) }
                header = try CSVHeader(record.bytes, delimiter: delimiter, path: path)
                return true
            }
        default: try scan(LineSplitter()) { try body($0, .json) }
        }
    }
}

/// Makes an object of a record's bytes.
enum RecordDecoder: Sendable {
    case json
    case csv(CSVHeader)

    func object(_ bytes: UnsafeBufferPointer<UInt8>, origin: RowOrigin) throws -> JSONObject {
        if case .csv(let header) = self { return try header.object(bytes, origin: origin) }
        let value: JSONValue
        do {
            value = try JSONParser.parse(bytes)
        } catch {
            throw DatasetError(.malformedRow, "not JSON: \(error)", origin: origin)
        }
        guard case .object(let object) = value else {
            throw DatasetError(.malformedRow, "the row is \(value.kind), not an object", origin: origin)
        }
        return object
    }
}

/// A file open for reading, closed with this object.
final class OpenFile: Sendable {
    let path: String
    let descriptor: Int32

    init(path: String) throws {
        self.path = path
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw DatasetError(.unreadable, "cannot open '\(path)': \(Self.systemMessage())")
        }
    }

    /// Takes over a descriptor.
    init(path: String, descriptor: Int32) {
        self.path = path
        self.descriptor = descriptor
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// The first bytes, as many as there are up to `count`. A pipe has none to give without taking them away.
    func head(count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, count, 0) }
        guard got >= 0 else {
            let isPipe = errno == ESPIPE
            throw DatasetError(
                .unreadable, "cannot read '\(path)': \(isPipe ? "a pipe cannot be read twice" : Self.systemMessage())")
        }
        return Array(bytes.prefix(got))
    }

    static func systemMessage() -> String { String(cString: strerror(errno)) }
}
