/// Why a conversation cannot be built, or its tokens cannot be told apart.
public struct ConversationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kind of failure; open, so that callers keep a default case.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ name: String) { description = name }

        /// Tokens or messages were added in an order that no conversation has.
        public static let order = Code("wrong order")
        /// Sampled tokens that cannot be: none, negative ids, not as many log-probabilities, tokens behind the turn's end.
        public static let sampled = Code("bad sampled tokens")
        /// What the template writes between a reply and the next one cannot be told from the reply.
        public static let continuation = Code("no continuation")
        /// The assistant's tokens cannot be told apart.
        public static let mask = Code("no assistant mask")
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "conversation: \(message) [\(code)]" }
}
