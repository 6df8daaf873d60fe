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
