public import RolloutCore

/// One answer that was sampled token by token.
public struct StreamedAnswer: Sendable, Hashable {
    public var promptTokens: Int
    /// The new tokens, the one that ended the answer included.
    public var tokens: [Int32]
    /// log-probability of each at the sampling temperature, before any filter.
    public var logProbs: [Float]
    public var finishReason: FinishReason
}
