public import RolloutCore

/// One sampled answer.
public struct GeneratedSample: Sendable, Hashable {
    /// The new tokens, the stop id included.
    public var tokens: [Int32]
    /// log-probability of each at the sampling temperature, before any filter.
    public var logProbs: [Float]
    public var finishReason: FinishReason
    /// The version of the weights that drew each token.
    public var weightVersions: [Int32]

    /// The oldest version among its tokens'; -1 without any.
    public var weightVersion: Int { Int(weightVersions.first ?? -1) }
}

/// Tokens as they come, for streaming.
public struct GeneratedToken: Sendable, Hashable {
    public var request, sample: Int
    public var token: Int32
    public var finishReason: FinishReason?
}

/// What one `generate` call did.
public struct GenerationStatistics: Sendable, Hashable {
    public var promptTokens = 0
    /// Prompt tokens that were really computed: shared ones count once.
    public var prefilledTokens = 0
    public var generatedTokens = 0
    /// Steps that decoded, and steps that computed prompts; a step may do both.
    public var decodeSteps = 0
    public var prefills = 0
    public var cacheBytes = 0
}
