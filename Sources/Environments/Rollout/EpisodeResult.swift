public import Conversations
public import OrderedCollections

/// One episode, from its prompt to its score.
public struct EpisodeResult: Sendable {
    public struct TurnReward: Hashable, Sendable {
        /// The turn's last token, as an index into the record's response.
        public var token: Int
        public var reward: Double
    }

    public var task: EpisodeTask
    /// Prompt, response, mask and log-probabilities for a trainer; nil when nothing was drawn.
    public var record: ConversationRecord?
    /// The messages as they were read, for people.
    public var conversation: Conversation?
    public var ending: EpisodeEnding
    /// The sum of all rewards; nil for an episode that failed.
    public var score: Double?
    /// Where each part of the score was earned, for credit by turns. What the episode's end added is at the last token.
    public var turnRewards: [TurnReward] = []
    /// What the last reply says, calls and reasoning apart; empty where it holds a call.
    public var answer = ""
    /// Summed over the steps.
    public var details: OrderedDictionary<String, Double> = [:]
    public var turns = 0
    /// Of the weights that drew the response: the oldest, and the newest; -1 where the sampler does not say.
    public var oldestWeights = -1
    public var newestWeights = -1
    /// In the environment, its waiting included.
    public var environmentTime = Duration.zero

    init(task: EpisodeTask, ending: EpisodeEnding) {
        self.task = task
        self.ending = ending
    }

    /// The response's text, special tokens spelt out.
    public var text: String {
        guard let record, let conversation else { return "" }
        return conversation.format.spell(record.response)
    }
}

/// What a rollout's episodes amount to.
public struct EpisodeStatistics: Hashable, Sendable {
    /// Ready for metrics: names with a slash, in a settled order.
    public private(set) var values: OrderedDictionary<String, Double> = [:]
    /// The first failure's message of each kind.
    public private(set) var examples: OrderedDictionary<EpisodeFailure.Kind, String> = [:]

    public init(_ results: [EpisodeResult]) {
        guard !results.isEmpty else { return }
        let count = Double(results.count)
        let turns = results.map { Double($0.turns) }
        values["episode/count"] = count
        values["episode/turns/mean"] = turns.reduce(0, +) / count
        values["episode/turns/max"] = turns.max()
        let seconds = results.map { $0.environmentTime / .seconds(1) }
        values["episode/environment_seconds/mean"] = seconds.reduce(0, +) / count
        values["episode/environment_seconds/max"] = seconds.max()
        for ending in results.map(\.ending.name).sorted() { values["episode/ended/\(ending)", default: 0] += 1 }
        values["episode/failed"] = Double(results.count { $0.ending.failure != nil })
        let drawn = results.reduce(0) { $0 + ($1.record?.responseMask.count { $0 == 1 } ?? 0) }
        let response = results.reduce(0) { $0 + ($1.record?.response.count ?? 0) }
        values["episode/drawn_tokens/mean"] = Double(drawn) / count
        values["episode/shown_tokens/mean"] = Double(response - drawn) / count
        var details: OrderedDictionary<String, Double> = [:]
        for result in results { details.merge(result.details) { $0 + $1 } }
        for (name, sum) in details.sorted(by: { $0.key < $1.key }) { values["episode/detail/\(name)"] = sum / count }
        for failure in results.compactMap(\.ending.failure) where examples[failure.kind] == nil {
            examples[failure.kind] = failure.message
        }
    }
}
