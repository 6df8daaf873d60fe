/// What went wrong while recording, reading or showing a run: the place, the values and the remedy.
public struct TelemetryError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kind of failure. Open: layers above may add their own.
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }

        /// A system call failed; `errorNumber` says how.
        public static let io = Code("io")
        /// A file of the run does not hold what it should.
        public static let malformed = Code("malformed")
        /// Another process writes the file.
        public static let busy = Code("busy")
        /// A step was written that is not after the file's last step.
        public static let outOfOrder = Code("out_of_order")
        /// A metric's or a phase's name breaks the naming rule.
        public static let invalidName = Code("invalid_name")
        /// Two parts of a step recorded the same metric.
        public static let duplicateMetric = Code("duplicate_metric")
    }

    public let code: Code
    public let message: String
    /// The file concerned, when there is one.
    public let path: String?
    /// The `errno` of the failed system call, when there was one.
    public let errorNumber: Int32?

    public init(_ code: Code, _ message: String, path: String? = nil, errorNumber: Int32? = nil) {
        self.code = code
        self.message = message
        self.path = path
        self.errorNumber = errorNumber
    }

    public var description: String { path.map { "\($0): \(message)" } ?? message }
}
