/// The random numbers of one input: a run's seed and the input's number give all of them, so that any input can be made
/// again (SplitMix64, Steele et al. 2014).
public struct FuzzRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64, input: Int) {
        state = seed &* 0xD605_0B17_3A1C_9D25 ^ UInt64(truncatingIfNeeded: input) &* 0x9E37_79B9_7F4A_7C15
        for _ in 0..<2 { _ = next() }
    }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }

    /// A number from 0 up to `bound`, which must be positive.
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }

    mutating func chance(percent: Int) -> Bool { below(100) < percent }

    mutating func pick<Element>(_ list: [Element]) -> Element { list[below(list.count)] }

    /// Mostly small, now and then as large as `limit`.
    mutating func length(upTo limit: Int) -> Int {
        guard limit > 1 else { return max(limit, 0) }
        return 1 + below(chance(percent: 80) ? min(limit, 16) : limit)
    }

    /// A place within `count` elements, for `count` of at least 1.
    mutating func range(in count: Int) -> Range<Int> {
        let start = below(count)
        return start..<start + length(upTo: count - start)
    }
}
