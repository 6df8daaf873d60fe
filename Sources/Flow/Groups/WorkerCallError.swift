/// Why a call on a worker gave no answer.
public struct WorkerCallError: Error, Sendable, Codable, CustomStringConvertible {
    public struct Code: Hashable, Sendable, Codable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// The worker threw.
        public static let failed = Code("failed")
        /// The worker's process ended, its host went away, or it shows no life.
        public static let lost = Code("lost")
        /// The connection broke, though the process may live.
        public static let connection = Code("connection")
        /// No answer within the call's deadline.
        public static let deadline = Code("deadline")
        public static let cancelled = Code("cancelled")
        /// Token or certificate were refused.
        public static let refused = Code("refused")
        /// A message is longer than the limit.
        public static let tooLarge = Code("tooLarge")
        /// The worker does not know the call.
        public static let unknownCall = Code("unknownCall")
        /// What came back is not what was asked for.
        public static let badAnswer = Code("badAnswer")
        /// Rows that are no longer, or never were, where a reference says.
        public static let missingRows = Code("missingRows")
    }

    public var code: Code
    public var message: String
    /// The worker's name; empty where it concerns none alone.
    public var worker: String
    /// Whether another worker is at fault, whose own error says more.
    public var isConsequence: Bool
    /// With which a process that failed in this way ends.
    public var exitCode: Int32?

    public init(
        _ code: Code, _ message: String, worker: String = "", isConsequence: Bool = false, exitCode: Int32? = nil
    ) {
        self.code = code
        self.message = message
        self.worker = worker
        self.isConsequence = isConsequence
        self.exitCode = exitCode
    }

    public var description: String { message }

    static var noAnswer: WorkerCallError {
        WorkerCallError(.badAnswer, "no worker whose answer counts was asked; use another rule to collect")
    }
}
