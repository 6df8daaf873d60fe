/// What went wrong with a dataset, and where.
public struct DatasetError: Error, Hashable, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String

        private init(_ description: String) { self.description = description }

        /// The file cannot be opened or read, or changed under the reader.
        public static let unreadable = Code("unreadable")
        /// A line is not one JSON object, or rows cannot be told apart.
        public static let malformedRow = Code("malformedRow")
        /// A column is missing, or holds another type than it must.
        public static let badColumn = Code("badColumn")
        /// There is no row, or none is left after filtering.
        public static let empty = Code("empty")
        /// A prompt is longer than allowed, and the policy is to refuse.
        public static let promptTooLong = Code("promptTooLong")
        /// A loader's saved position is not one of this dataset.
        public static let stateMismatch = Code("stateMismatch")
        /// A pattern of file names matches nothing.
        public static let noMatch = Code("noMatch")
        /// Parquet is asked for, and Arrow's library is missing or of another version.
        public static let arrowMissing = Code("arrowMissing")
        /// There is no space left for temporary files or results.
        public static let diskFull = Code("diskFull")
        /// A setting is out of its range.
        public static let badSetting = Code("badSetting")
    }

    public let code: Code
    /// What is wrong, with the values and the remedy.
    public let message: String
    /// Where: nil when no row is at fault.
    public let origin: RowOrigin?
    /// The column at fault, as a dotted path (`reward_model.ground_truth`).
    public let column: String?

    public init(_ code: Code, _ message: String, origin: RowOrigin? = nil, column: String? = nil) {
        self.code = code
        self.message = message
        self.origin = origin
        self.column = column
    }

    public var description: String {
        let place = origin.map { "\($0): " } ?? ""
        let named = column.map { "column '\($0)': " } ?? ""
        return place + named + message
    }
}

/// Where a row came from.
public struct RowOrigin: Hashable, Sendable, Codable, CustomStringConvertible {
    /// A file's path, or the name of the generator that made the row.
    public let source: String
    /// Counted from 1: the line of a file that the row begins on, the ordinal of a row of Parquet or of a generator.
    public let line: Int

    public init(source: String, line: Int) {
        self.source = source
        self.line = line
    }

    public var description: String { "\(source):\(line)" }
}
