/// Draws continuations of token prefixes: a rollout engine, seen from a conversation.
///
/// Many calls are under way at once, one of each episode whose turn it is. An engine with continuous batching takes them as
/// they come; one that draws batches is put behind a ``GatheringSampler``.
public protocol ContinuationSampler: Sendable {
    /// - Throws: what ends the whole rollout; there are no failures of single episodes here.
    func sample(_ request: ContinuationRequest) async throws -> SampledContinuation
    /// So many episodes begin to draw, or have ended: what a sampler that waits for company must know.
    func episodesBegan(_ count: Int) async
    func episodeEnded() async
}

extension ContinuationSampler {
    public func episodesBegan(_ count: Int) async {}
    public func episodeEnded() async {}
}

public struct ContinuationRequest: Hashable, Sendable {
    /// ``EpisodeTask/id`` and the turn from 0.
    public var episode: Int
    public var turn: Int
    /// Everything so far, from the prompt's first token; it begins with the last turn's prefix and what was drawn for it,
    /// token for token, so a prefix cache finds it.
    public var prefix: [Int32]
    public var maxTokens: Int
    /// Decides every draw, whatever else runs: of the rollout's seed, the episode and the turn.
    public var seed: UInt64

    public init(episode: Int, turn: Int, prefix: [Int32], maxTokens: Int, seed: UInt64) {
        self.episode = episode
        self.turn = turn
        self.prefix = prefix
        self.maxTokens = maxTokens
        self.seed = seed
    }
}

/// What was drawn.
public struct SampledContinuation: Hashable, Sendable {
    /// At least one, the end-of-turn id included.
    public var tokens: [Int32]
    /// One for each token.
    public var logProbs: [Float]
    /// Whether `maxTokens` ended it.
    public var isTruncated: Bool
    /// Of the weights that drew each token; empty where the sampler does not say.
    public var weightVersions: [Int32]

    public init(tokens: [Int32], logProbs: [Float], isTruncated: Bool, weightVersions: [Int32] = []) {
        self.tokens = tokens
        self.logProbs = logProbs
        self.isTruncated = isTruncated
        self.weightVersions = weightVersions
    }
}
