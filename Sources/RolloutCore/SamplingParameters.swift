/// How tokens are drawn and when a sequence ends.
public struct SamplingParameters: Sendable, Hashable {
    /// Samples of each prompt.
    public var n: Int
    /// 0: greedy.
    public var temperature: Double
    /// 0 or less: off.
    public var topK: Int
    /// 1: off.
    public var topP: Double
    /// 0: off.
    public var minP: Double
    /// The most new tokens of a sequence.
    public var maxTokens: Int
    /// Ids that end a sequence; the id itself is kept as its last token.
    public var stopTokenIDs: Set<Int32>
    /// Texts that end a sequence once they appear in what it says.
    public var stop: [String]
    /// Decides every draw: one seed, one prompt, one sample index and one position give one token, whatever else runs.
    public var seed: UInt64

    public init(
        n: Int = 1, temperature: Double = 1, topK: Int = 0, topP: Double = 1, minP: Double = 0, maxTokens: Int = 16,
        stopTokenIDs: Set<Int32> = [], stop: [String] = [], seed: UInt64 = 0
    ) {
        self.n = n
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.maxTokens = maxTokens
        self.stopTokenIDs = stopTokenIDs
        self.stop = stop
        self.seed = seed
    }

    /// The uniform number in [0, 1) that decides token `position` of sample `sample` (SplitMix64 of seed, sample, position).
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
