/// A prompt as the loop hands it about.
public struct PromptTask: Sendable, Hashable, Codable {
    /// Distinct within a step; samples of one prompt share it.
    public var group: Int
    public var tokens: [Int32]
    /// The prompt for people: the last user turn.
    public var text: String
    public var dataSource: String
    public var groundTruth: String
    /// The ground truth and the row's other facts as JSON, for reward functions.
    public var groundTruthJSON: String?
    public var extraInfoJSON: String?
    /// The turns that ``tokens`` were rendered from; empty for plain text.
    public var messages: [Message]

    public struct Message: Sendable, Hashable, Codable {
        public var role: String
        public var content: String

        public init(role: String, content: String) {
            self.role = role
            self.content = content
        }
    }

    public init(
        group: Int, tokens: [Int32], text: String, dataSource: String, groundTruth: String,
        groundTruthJSON: String? = nil, extraInfoJSON: String? = nil, messages: [Message] = []
    ) {
        self.group = group
        self.tokens = tokens
        self.text = text
        self.dataSource = dataSource
        self.groundTruth = groundTruth
        self.groundTruthJSON = groundTruthJSON
        self.extraInfoJSON = extraInfoJSON
        self.messages = messages
    }
}

/// One answer, from sampling to the update.
public struct Trajectory: Sendable, Hashable, Codable {
    public var prompt: PromptTask
    public var response: [Int32]
    public var text: String
    /// What the sampler recorded, one value a token.
    public var rolloutLogProbs: [Float]
    public var isTruncated: Bool
    /// Which weights sampled it: their version, and the digest of their bytes.
    public var weightVersion: Int
    public var weightDigest: String
    public var score: Double?
    public var scoreDetails: [String: Double] = [:]
    /// The score of the prompt's greedy answer, where advantages are against that.
    public var baselineScore: Double?
    /// Which tokens of the response the model made; the others (a tool's words) are read and never learned. nil: all.
    public var responseMask: [Bool]?
    /// What was earned at each token, where it was not all at the end; nil: ``score`` at the last token.
    public var tokenRewards: [Float]?
    /// Of an answer over several turns.
    public var episode: EpisodeOutcome?
    public var oldLogProbs: [Float]?
    public var refLogProbs: [Float]?
    /// Σπ² of the distribution that each token was drawn from.
    public var sumPiSquared: [Float]?
    /// The critic's values of each position, and what they are to become.
    public var values: [Float]?
    public var returns: [Float]?
    public var advantages: [Float] = []
    /// Weights of the tokens' losses that correct for another sampling policy; nil: 1 for all.
    public var importanceWeights: [Float]?

    /// The tokens that are learned.
    public var learnedCount: Int { responseMask.map { $0.count { $0 } } ?? response.count }

    public init(
        prompt: PromptTask, response: [Int32], text: String, rolloutLogProbs: [Float], isTruncated: Bool,
        weightVersion: Int, weightDigest: String
    ) {
        self.prompt = prompt
        self.response = response
        self.text = text
        self.rolloutLogProbs = rolloutLogProbs
        self.isTruncated = isTruncated
        self.weightVersion = weightVersion
        self.weightDigest = weightDigest
    }
}
