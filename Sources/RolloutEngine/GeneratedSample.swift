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

    /// The likeliest tokens at each place, likeliest first, where ``SamplingParameters/logProbs`` asks for them.
    public var topLogProbs: [[TokenLogProb]] = []
    /// Of each of the prompt's tokens but the first, at temperature 1, where ``SamplingParameters/promptLogProbs`` asks.
    public var promptLogProbs: [PromptLogProb] = []

    /// The oldest version among its tokens'; -1 without any.
    public var weightVersion: Int { Int(weightVersions.first ?? -1) }
}

public struct TokenLogProb: Sendable, Hashable {
    public var token: Int32
    public var logProb: Float
}

/// One of a prompt's tokens after those before it.
public struct PromptLogProb: Sendable, Hashable {
    public var token: Int32
    public var logProb: Float
    /// The likeliest tokens in its place.
    public var top: [TokenLogProb] = []
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
