/// What `fledge generate --input` is asked for.
public struct BatchSettings: Sendable, Hashable {
    /// Which members of an input line stand on its output line, beside `id` and `index`.
    public enum Keep: String, Sendable, Hashable, CaseIterable {
        /// Those that nothing here reads.
        case unknown
        /// All but `seed`, which the output line has anyway.
        case all
        case none
    }

    /// JSON Lines, or any other format that `Datasets` reads.
    public var input: String
    public var output: String
    public var sampling = BatchSampling()
    /// Whether `prompt` as text is a user's message for the chat template.
    public var isChat = false
    /// A system turn for conversations without one.
    public var system: String?
    public var logProbs = false
    /// Whether output lines come in the input's order; else as they are finished.
    public var isOrdered = false
    /// Whether what an earlier run left is thrown away.
    public var overwrites = false
    /// Whether bad lines are left out; else the first ones are reported and nothing is done.
    public var skipsBad = false
    public var keep = Keep.unknown

    public init(input: String, output: String) {
        self.input = input
        self.output = output
    }
}

/// Why a batch cannot go on.
public struct BatchError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        /// Lines that cannot be used as they are.
        public static let badInput = Code("badInput")
        public static let badSetting = Code("badSetting")
        /// The output was begun with other settings or of other lines.
        public static let conflict = Code("conflict")
        /// The output does not hold what this program writes.
        public static let damagedOutput = Code("damagedOutput")
        /// The output cannot be written; what it holds is whole.
        public static let writing = Code("writing")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
