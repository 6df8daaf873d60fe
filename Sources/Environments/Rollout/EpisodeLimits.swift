/// What ends an episode whose environment does not.
public struct EpisodeLimits: Hashable, Sendable {
    /// Replies of the model.
    public var turns: Int
    /// Tokens of the opening messages; an episode with more fails.
    public var promptTokens: Int
    /// Tokens of one reply.
    public var turnTokens: Int
    /// Tokens behind the prompt, drawn and shown ones together.
    public var responseTokens: Int
    /// Tokens in all: what the model can take.
    public var contextTokens: Int
    /// For an environment's `reset`, and for each `step`.
    public var resetTime: Duration
    public var stepTime: Duration
    /// For all of an episode's time in its environment.
    public var episodeTime: Duration
    /// Episodes that are under way at the same time; the others wait for their turn.
    public var concurrency: Int

    public init(
        turns: Int = 8, promptTokens: Int = .max, turnTokens: Int = 1024, responseTokens: Int = 4096,
        contextTokens: Int = .max,
        resetTime: Duration = .seconds(60), stepTime: Duration = .seconds(60), episodeTime: Duration = .seconds(600),
        concurrency: Int = 1024
    ) {
        self.turns = turns
        self.promptTokens = promptTokens
        self.turnTokens = turnTokens
        self.responseTokens = responseTokens
        self.contextTokens = contextTokens
        self.resetTime = resetTime
        self.stepTime = stepTime
        self.episodeTime = episodeTime
        self.concurrency = concurrency
    }

    /// - Throws: ``EnvironmentError`` that names what is not above 0.
    func check() throws {
        let counts = [
            ("turns", turns), ("promptTokens", promptTokens), ("turnTokens", turnTokens),
            ("responseTokens", responseTokens),
            ("contextTokens", contextTokens), ("concurrency", concurrency),
        ]
        let bad =
            counts.first { $0.1 <= 0 }.map { "\($0.0) is \($0.1)" }
            ?? (resetTime > .zero && stepTime > .zero && episodeTime > .zero ? nil : "a time limit is not above 0")
        if let bad { throw EnvironmentError(.badSetting, "episode limits must be above 0; \(bad)") }
    }
}
