/// Steele, Lea and Flood's SplitMix64 (OOPSLA 2014): the same numbers on every machine and in every version, which
/// neither the system's generator nor the standard library's way from bits to ranges promises.
public struct SplitMix64: RandomNumberGenerator, Hashable, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    /// A generator for one part (an epoch, a split) of what a seed decides; parts do not share a stream.
    public init(seed: UInt64, part: UInt64) {
        var outer = SplitMix64(seed: seed)
        var inner = SplitMix64(seed: outer.next() ^ part)
        state = inner.next()
    }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// A number in `0..<bound`, each as likely as the others (Lemire's method, arXiv:1805.10941).
    public mutating func next(below bound: UInt64) -> UInt64 {
        precondition(bound > 0, "a bound of 0 leaves nothing to draw")
        var product = next().multipliedFullWidth(by: bound)
        if product.low < bound {
            let threshold = (0 &- bound) % bound
            while product.low < threshold { product = next().multipliedFullWidth(by: bound) }
        }
        return product.high
    }

    /// The numbers `0..<count` in a random order (Fisher and Yates).
    public mutating func permutation(count: Int) -> [UInt32] {
        precondition(count <= Int(UInt32.max), "more rows than 32 bits can number")
        var order = [UInt32](unsafeUninitializedCapacity: count) { buffer, initialized in
            for index in 0..<count { buffer.initializeElement(at: index, to: UInt32(index)) }
            initialized = count
        }
        for index in stride(from: count - 1, to: 0, by: -1) {
            order.swapAt(index, Int(next(below: UInt64(index + 1))))
        }
        return order
    }
}
