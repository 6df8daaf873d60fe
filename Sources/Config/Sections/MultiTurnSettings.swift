/// `rollout.multi_turn`: episodes in which replies and what an environment says take turns. Names are verl's where it has them.
public struct MultiTurnSettings: Hashable, Sendable {
    /// How a model writes tool calls.
    public enum Format: String, CaseIterable, Hashable, Sendable, SettingWord {
        /// What the chat template shows.
        case auto
        case hermes, llama3, deepseek
    }

    public let enable: Bool
    public let format: Format
    public let thinking: Bool
    public let maxAssistantTurns: Int
    public let maxUserTurns: Int?
    /// nil for `data.max_response_length`.
    public let maxTurnLength: Int?
    public let maxToolResponseLength: Int
    public let resetTimeoutSeconds: Double
    public let stepTimeoutSeconds: Double
    public let episodeTimeoutSeconds: Double
    public let maxConcurrentEpisodes: Int
    public let patienceSeconds: Double?

    /// Replies of an episode at most: an environment speaks between two of them.
    public var turns: Int { min(maxAssistantTurns, maxUserTurns.map { $0 + 1 } ?? .max) }

    init(_ section: inout SectionReader) {
        enable = section.bool(
            "enable", default: false,
            doc: "Play episodes of several turns in the world that the section environment describes.")
        format = section.choice(
            "format", default: .auto,
            doc: "How the model writes tool calls; auto is what its chat template shows.")
        thinking = section.bool(
            "thinking", default: false,
            doc: "Replies begin with reasoning that ends with </think>: calls and answers in it do not count.")
        maxAssistantTurns = section.int(
            "max_assistant_turns", default: 8, in: 1...4096, doc: "The most replies of an episode.")
        maxUserTurns = section.optionalInt(
            "max_user_turns", in: 0...4095,
            doc: "The most times that the environment speaks after the prompt; null for no limit of its own.")
        maxTurnLength = section.optionalInt(
            "max_turn_length", in: 1...16_777_216,
            doc:
                "The most tokens of one reply; null for data.max_response_length, which limits all that follows the prompt, "
                + "replies and what tools and users say together.")
        maxToolResponseLength = section.int(
            "max_tool_response_length", default: 1024, in: 1...16_777_216,
            doc: "The most bytes of a tool's result that the model is shown; the rest is cut.")
        resetTimeoutSeconds = section.number(
            "reset_timeout_s", default: 60, in: .positive, doc: "Seconds that an environment has to begin an episode.")
        stepTimeoutSeconds = section.number(
            "step_timeout_s", default: 60, in: .positive, doc: "Seconds that it has to answer a reply.")
        episodeTimeoutSeconds = section.number(
            "episode_timeout_s", default: 600, in: .positive,
            doc: "Seconds that an episode may spend in its environment in all.")
        maxConcurrentEpisodes = section.int(
            "max_concurrent_episodes", default: 1024, in: 1...1_048_576,
            doc: "Episodes that are under way at the same time.")
        patienceSeconds = section.optionalNumber(
            "patience_s", in: .positive,
            doc:
                "Seconds that a reply waits for other episodes' replies, to be drawn in one batch. null: until all that go on are "
                + "there, so that the batches, and with them every bit, are the same in every run.")
    }
}
