/// How a file holds its rows.
public enum RecordFormat: String, Hashable, Sendable, CaseIterable {
    /// One JSON object on each line.
    case jsonLines = "jsonl"
    /// A list of objects.
    case json
    /// Comma-separated values (RFC 4180) with a header.
    case csv
    /// The same with tabs.
    case tsv
    case parquet

    /// By the end of a file's name; nil for a name that says nothing.
    public init?(extensionOf path: String) {
        let name = path.split(separator: "/").last ?? ""
        guard let dot = name.lastIndex(of: ".") else { return nil }
        switch name[name.index(after: dot)...].lowercased() {
        case "jsonl", "ndjson": self = .jsonLines
        case "json": self = .json
        case "csv": self = .csv
        case "tsv": self = .tsv
        case "parquet", "pq": self = .parquet
        default: return nil
        }
    }

    /// By a file's name and first bytes. A `.json` file may hold JSON Lines, as it often does; a name that says nothing
    /// is Parquet by its mark, a list by its bracket, else JSON Lines.
    static func detect(path: String, head: UnsafeBufferPointer<UInt8>) throws -> RecordFormat {
        if head.starts(with: [0x1F, 0x8B]) || head.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) {
            throw DatasetError(.unreadable, "'\(path)' is compressed: unpack it first (gunzip, unzstd)")
        }
        let isParquet = head.starts(with: "PAR1".utf8)
        let first = head.first { ![0x20, 0x09, 0x0A, 0x0D, 0xEF, 0xBB, 0xBF].contains($0) }
        switch RecordFormat(extensionOf: path) {
        case .parquet: return .parquet
        case let named? where named != .json:
            guard !isParquet else {
                throw DatasetError(.unreadable, "'\(path)' is a Parquet file: give it a name that ends in .parquet")
            }
            return named
        case .json: return first == UInt8(ascii: "{") ? .jsonLines : .json
        default:
            if isParquet { return .parquet }
            return first == UInt8(ascii: "[") ? .json : .jsonLines
        }
    }

    /// The byte between two fields; nil for formats that have none.
    var delimiter: UInt8? {
        switch self {
        case .csv: UInt8(ascii: ",")
        case .tsv: UInt8(ascii: "\t")
        default: nil
        }
    }
}
