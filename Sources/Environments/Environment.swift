public import ChatTemplates
public import Conversations
public import OrderedCollections

/// A world that a model acts in over several turns. Many of its episodes run at the same time.
public protocol Environment: Sendable {
    /// What the model is told that it can call; the same in all episodes.
    var tools: [ToolDefinition] { get }
    /// Begins an episode.
    /// - Throws: ``EpisodeFailure``; any other error counts as `.raised`.
    func reset(_ task: EpisodeTask) async throws -> EpisodeOpening
    /// Ends what the environment keeps running.
    func shutdown() async
}

extension Environment {
    public func shutdown() async {}
}

/// One episode that is under way. The driver calls one function at a time.
public protocol Episode: Sendable {
    /// What becomes of a reply of the model.
    /// - Throws: ``EpisodeFailure``; any other error counts as `.raised`. The episode is over then and has no score.
    func step(_ reply: EpisodeReply) async throws -> EpisodeStep
    /// The episode is ended by the driver: what it was worth so far that no step has counted.
    /// - Parameter reply: the last reply, where no step has seen it: it was cut off.
    func cutOff(_ ending: EpisodeEnding, _ reply: EpisodeReply?) async throws -> EpisodeStep
    /// Gives up what the episode holds; called once, however it ended.
    func close() async
}

extension Episode {
    public func cutOff(_ ending: EpisodeEnding, _ reply: EpisodeReply?) async throws -> EpisodeStep {
        EpisodeStep(isDone: true)
    }
    public func close() async {}
}

/// What an episode is about.
public struct EpisodeTask: Hashable, Sendable, Identifiable {
    /// Distinct within a rollout.
    public var id: Int
    /// Episodes of one prompt share it, for group-relative advantages.
    public var group: Int
    /// For whatever the environment draws at random.
    public var seed: UInt64
    /// What the conversation begins with.
    public var messages: [ChatMessage]
    public var dataSource: String
    public var groundTruth: String
    /// The right answer as JSON, where it is not a string.
    public var groundTruthJSON: String?
    /// The row's other facts as JSON.
    public var extraInfoJSON: String?

    public init(
        id: Int, group: Int? = nil, seed: UInt64 = 0, messages: [ChatMessage], dataSource: String = "",
        groundTruth: String = "", groundTruthJSON: String? = nil, extraInfoJSON: String? = nil
    ) {
        self.id = id
        self.group = group ?? id
        self.seed = seed
        self.messages = messages
        self.dataSource = dataSource
        self.groundTruth = groundTruth
        self.groundTruthJSON = groundTruthJSON
        self.extraInfoJSON = extraInfoJSON
    }
}

/// An episode with the messages that the model is shown first.
public struct EpisodeOpening: Sendable {
    public var episode: any Episode
    public var messages: [ChatMessage]

    public init(_ episode: any Episode, _ messages: [ChatMessage]) {
        self.episode = episode
        self.messages = messages
    }
}

/// A reply of the model as an environment sees it.
public struct EpisodeReply: Hashable, Sendable {
    /// All of its text without the token that ends it, special tokens spelt out.
    public var text: String
    /// Its text without tool calls (and reasoning, where that is told apart), and the calls.
    public var parsed: ToolReply
    /// From 0.
    public var turn: Int
    public var tokens: Int

    public init(text: String, parsed: ToolReply, turn: Int = 0, tokens: Int = 0) {
        self.text = text
        self.parsed = parsed
        self.turn = turn
        self.tokens = tokens
    }
}

/// What a step gives.
public struct EpisodeStep: Hashable, Sendable {
    /// What the model is shown next; nothing of it is shown when the episode is done.
    public var messages: [ChatMessage]
    /// Finite. An episode's score is the sum over its steps.
    public var reward: Double
    public var isDone: Bool
    /// Finite named numbers, summed over the steps.
    public var details: OrderedDictionary<String, Double>

    public init(
        messages: [ChatMessage] = [], reward: Double = 0, isDone: Bool = false,
        details: OrderedDictionary<String, Double> = [:]
    ) {
        self.messages = messages
        self.reward = reward
        self.isDone = isDone
        self.details = details
    }
}

/// How an episode came to its end.
public enum EpisodeEnding: Hashable, Sendable {
    /// The environment said so.
    case done
    /// All turns were used.
    case turnLimit
    /// The episode's tokens, or the model's context, were used up.
    case tokenLimit
    /// A reply had no end within a turn's tokens.
    case truncatedReply
    /// It has no score.
    case failed(EpisodeFailure)

    /// For metrics and for environments in Python.
    public var name: String {
        switch self {
        case .done: "done"
        case .turnLimit: "turn_limit"
        case .tokenLimit: "token_limit"
        case .truncatedReply: "truncated_reply"
        case .failed(let failure): "failed_\(failure.kind.rawValue)"
        }
    }

    public var failure: EpisodeFailure? {
        if case .failed(let failure) = self { failure } else { nil }
    }
}

/// Why an episode has no score.
public struct EpisodeFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        /// The environment raised an error.
        case raised
        /// It took longer than it may.
        case timedOut = "timed_out"
        /// It gave something that is no observation, or a reward that is no finite number.
        case garbage
        /// The process that it ran in ended.
        case died
        /// The reward function has no score for it.
        case unscored
        /// The chat template cannot render its messages, or cannot go on after a reply.
        case template
    }

    public let kind: Kind
    public let message: String

    public init(_ kind: Kind, _ message: String) {
        self.kind = kind
        self.message = message
    }

    public var description: String { "\(kind.rawValue): \(message)" }
}

/// An environment that cannot be made or used at all.
public struct EnvironmentError: Error, Hashable, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ name: String) { description = name }

        /// A setting is out of range.
        public static let badSetting = Code("bad setting")
        /// The file of a Python environment is missing, does not load, or lacks its class.
        public static let badEnvironmentFile = Code("bad environment file")
        /// The Python interpreter cannot be started.
        public static let noInterpreter = Code("no interpreter")
        /// This host cannot enforce what the sandbox must.
        public static let sandbox = Code("sandbox")
        /// What a sampler drew cannot be.
        public static let badContinuation = Code("bad continuation")
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { "environment: \(message) [\(code)]" }
}
