/// What went wrong in a tokenizer's files or in a call, where, and what to do about it.
public struct TokenizerError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kind of failure; open, so that more can be added without breaking a switch.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let name: String
        public init(_ name: String) { self.name = name }
        public var description: String { name }

        /// A file is absent or cannot be read.
        public static let unreadable = Code("unreadable")
        /// The text is no JSON.
        public static let invalidJSON = Code("invalidJSON")
        /// The JSON is no tokenizer: a field is missing or has a wrong type or value.
        public static let invalidField = Code("invalidField")
        /// A `tokenizer.model` or a rank file is damaged.
        public static let invalidModel = Code("invalidModel")
        /// A component or an option that this library does not know.
        public static let unsupported = Code("unsupported")
        /// A regular expression cannot be read.
        public static let invalidPattern = Code("invalidPattern")
        /// A regular expression took too many steps on a text.
        public static let patternTooSlow = Code("patternTooSlow")
        /// A text has no encoding: a word is unknown and there is no unknown token.
        public static let unknownToken = Code("unknownToken")
        /// The text is too long, or the truncation rule cannot be obeyed.
        public static let cannotTruncate = Code("cannotTruncate")
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "tokenizer: \(message) (\(code))" }
}
