/// How tokens are drawn and when a sequence ends. Names and meanings are vLLM's `SamplingParams`, whose own follow
/// OpenAI's.
public struct SamplingParameters: Sendable, Hashable {
    /// Samples of each prompt.
    public var n: Int
    /// Logits are divided by it. 0: greedy.
    public var temperature: Double
    /// Only the `topK` likeliest tokens may be drawn. 0 or less: off.
    public var topK: Int
    /// Only the likeliest tokens whose probabilities first add up to `topP` may be drawn. 1: off.
    public var topP: Double
    /// Only tokens at least `minP` times as likely as the likeliest may be drawn. 0: off.
    public var minP: Double
    /// For logits of tokens in the prompt or generated so far: positive ones are divided by it, others multiplied.
    /// Above 1 discourages repetition, below 1 encourages it; 1: off.
    public var repetitionPenalty: Double
    /// Taken from the logit of every token generated so far, once. 0: off.
    public var presencePenalty: Double
    /// Taken from the logit of every token generated so far, once for each time. 0: off.
    public var frequencyPenalty: Double
    /// Added to the logits of these ids; minus infinity forbids one.
    public var logitBias: [Int32: Float]
    /// The most new tokens of a sequence.
    public var maxTokens: Int
    /// Stop ids cannot be drawn, and stop texts do not count, before a sequence has this many new tokens.
    public var minTokens: Int
    /// Ids that end a sequence; the id itself is kept as its last token.
    public var stopTokenIDs: Set<Int32>
    /// Stop ids do not end a sequence; for measurements.
    public var ignoreEOS: Bool
    /// Texts that end a sequence once they appear in what it says.
    public var stop: [String]
    /// Whether the text of an answer holds the stop text that ended it. Its tokens always do.
    public var includesStopText: Bool
    /// How many of the likeliest tokens to report beside each drawn one, whose log-probability is always there.
    public var logProbs: Int
    /// Report the log-probabilities of the prompt's tokens, and so many of the likeliest beside each; nil: no.
    public var promptLogProbs: Int?
    /// Decides every draw: one seed, one prompt, one sample index and one position give one token, whatever else runs.
    public var seed: UInt64

    public init(
        n: Int = 1, temperature: Double = 1, topK: Int = 0, topP: Double = 1, minP: Double = 0,
        repetitionPenalty: Double = 1, presencePenalty: Double = 0, frequencyPenalty: Double = 0,
        logitBias: [Int32: Float] = [:], maxTokens: Int = 16, minTokens: Int = 0, stopTokenIDs: Set<Int32> = [],
        ignoreEOS: Bool = false, stop: [String] = [], includesStopText: Bool = true, logProbs: Int = 0,
        promptLogProbs: Int? = nil, seed: UInt64 = 0
    ) {
        self.n = n
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.presencePenalty = presencePenalty
        self.frequencyPenalty = frequencyPenalty
        self.logitBias = logitBias
        self.maxTokens = maxTokens
        self.minTokens = minTokens
        self.stopTokenIDs = stopTokenIDs
        self.ignoreEOS = ignoreEOS
        self.stop = stop
        self.includesStopText = includesStopText
        self.logProbs = logProbs
        self.promptLogProbs = promptLogProbs
        self.seed = seed
    }

    /// Whether the adjustments of a row's logits depend on which tokens were generated, so that the last one must be
    /// known before the next is drawn.
    public var needsTokenHistory: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }

    /// Whether a row's logits are adjusted at all at some position.
    public var adjustsLogits: Bool {
        needsTokenHistory || !logitBias.isEmpty || (minTokens > 0 && !ignoreEOS && !stopTokenIDs.isEmpty)
    }

    /// Whether a new token ends its sequence.
    public func ends(at token: Int32) -> Bool { !ignoreEOS && stopTokenIDs.contains(token) }

    /// The uniform number in [0, 1) that decides token `position` of sample `sample` (SplitMix64 of seed, sample,
    /// position).
    public func uniform(sample: Int, position: Int) -> Double {
        var state = SplitMix64.mix(seed &+ 0x9E37_79B9_7F4A_7C15 &* UInt64(sample + 1))
        state = SplitMix64.mix(state &+ 0xD1B5_4A32_D192_ED03 &* UInt64(position + 1))
        return Double(state >> 11) * 0x1p-53
    }
}

/// Steele, Lea & Flood 2014: the finalizer of SplitMix64, a bijection that scatters every bit.
public enum SplitMix64 {
    public static func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// One seed from several numbers, in order.
    public static func seed(_ parts: UInt64...) -> UInt64 { parts.reduce(0) { mix($0 ^ mix($1)) } }
}

/// Why a sequence ended.
public enum FinishReason: String, Sendable, Hashable {
    /// A stop id or stop text.
    case stop
    /// The most tokens allowed.
    case length
    /// The caller said so.
    case abort
}
