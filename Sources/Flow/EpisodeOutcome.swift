/// What there is to say of an answer that was given over several turns.
public struct EpisodeOutcome: Sendable, Hashable, Codable {
    /// Why an episode has no worth.
    public struct Failure: Sendable, Hashable, Codable {
        /// A short name, as `timed_out`.
        public var kind: String
        public var message: String

        public init(kind: String, message: String) {
            self.kind = kind
            self.message = message
        }
    }

    /// How it came to its end, as `done` or `turn_limit`.
    public var ending: String
    /// What the last reply says, calls and reasoning apart; empty where it ends in a call.
    public var answer: String
    /// The sum of the environment's rewards; 0 after a failure.
    public var reward: Double
    public var failure: Failure?
    public var turns: Int
    public var toolCalls: Int
    /// Calls that failed, and malformed ones.
    public var toolErrors: Double
    /// The environment's own numbers.
    public var details: [String: Double]
    /// In the environment, its tools' time included.
    public var environmentSeconds: Double

    public init(
        ending: String, answer: String, reward: Double, failure: Failure? = nil, turns: Int, toolCalls: Int = 0,
        toolErrors: Double = 0, details: [String: Double] = [:], environmentSeconds: Double = 0
    ) {
        self.ending = ending
        self.answer = answer
        self.reward = reward
        self.failure = failure
        self.turns = turns
        self.toolCalls = toolCalls
        self.toolErrors = toolErrors
        self.details = details
        self.environmentSeconds = environmentSeconds
    }
}
