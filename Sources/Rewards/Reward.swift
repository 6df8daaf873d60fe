public import OrderedCollections

/// Scores answers. Of one answer, or of many at once, since some rewards (worker processes, servers) gain from it.
public protocol Reward: Sendable {
    /// - Returns: one outcome for each item, in the items' order. An item that could not be scored is `.failed`: a
    ///   reward neither throws for the whole batch nor makes up a score.
    func score(_ items: [RewardRequest]) async -> [RewardOutcome]
    /// Ends the processes and connections that it keeps; it scores nothing any more.
    func shutdown() async
}

extension Reward {
    public func shutdown() async {}
}

/// A reward that is a plain function of one item.
public protocol ItemReward: Reward {
    func score(_ item: RewardRequest) -> RewardOutcome
}

extension ItemReward {
    public func score(_ items: [RewardRequest]) async -> [RewardOutcome] { items.map { score($0) } }
}

/// One answer to score.
public struct RewardRequest: Hashable, Sendable, Identifiable {
    public var id: Int
    /// Which data the prompt came from (verl's `data_source`).
    public var dataSource: String
    /// The prompt as the model saw it.
    public var prompt: String
    /// The turns that the answer follows, where the prompt is a conversation.
    public var messages: [Message]
    /// The answer's text without special tokens (verl's `solution_str`).
    public var response: String
    /// The right answer as text.
    public var groundTruth: String
    /// The right answer as JSON, where it is not a string; what a Python reward gets then.
    public var groundTruthJSON: String?
    /// verl's `extra_info` as JSON.
    public var extraInfoJSON: String?
    public var responseTokens: Int
    /// The most tokens that the answer could have had.
    public var maximumResponseTokens: Int

    public struct Message: Hashable, Sendable {
        public var role: String
        public var content: String

        public init(role: String, content: String) {
            self.role = role
            self.content = content
        }
    }

    public init(
        id: Int, dataSource: String = "", prompt: String = "", messages: [Message] = [], response: String,
        groundTruth: String, groundTruthJSON: String? = nil, extraInfoJSON: String? = nil, responseTokens: Int = 0,
        maximumResponseTokens: Int = 0
    ) {
        self.id = id
        self.dataSource = dataSource
        self.prompt = prompt
        self.messages = messages
        self.response = response
        self.groundTruth = groundTruth
        self.groundTruthJSON = groundTruthJSON
        self.extraInfoJSON = extraInfoJSON
        self.responseTokens = responseTokens
        self.maximumResponseTokens = maximumResponseTokens
    }
}

/// What became of one item.
public enum RewardOutcome: Hashable, Sendable {
    /// A finite score, and finite named numbers to report beside it.
    case scored(Double, details: OrderedDictionary<String, Double> = [:])
    case failed(RewardFailure)

    public var score: Double? {
        if case .scored(let score, _) = self { score } else { nil }
    }

    public var failure: RewardFailure? {
        if case .failed(let failure) = self { failure } else { nil }
    }

    /// A score, or the failure that a number which is none makes.
    public static func checked(_ score: Double, details: OrderedDictionary<String, Double> = [:]) -> RewardOutcome {
        guard score.isFinite else { return .failed(RewardFailure(.nonFinite, "the score is \(score)")) }
        return .scored(score, details: details)
    }
}

/// Why an item has no score.
public struct RewardFailure: Hashable, Sendable, CustomStringConvertible {
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        /// The reward function raised an error.
        case raised
        /// It took longer than its deadline, or more work than its bound.
        case timedOut = "timed_out"
        /// It gave something that is not a score.
        case garbage
        /// The server that computes it cannot be reached, or answers with an error.
        case unavailable
        /// The process that computed it ended.
        case workerDied = "worker_died"
        /// It gave NaN or an infinity.
        case nonFinite = "non_finite"
        /// The caller went away before there was a score.
        case cancelled
    }

    public let kind: Kind
    public let message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { "\(kind.rawValue): \(message)" }
}
