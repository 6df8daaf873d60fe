/// What a pattern says.
indirect enum PatternSyntax {
    case empty
    case scalar(Unicode.Scalar)
    case any
    case set(ScalarSet)
    case assertion(PatternAssertion)
    case group(PatternSyntax, number: Int?)
    case sequence([PatternSyntax])
    case choice([PatternSyntax])
    case loop(PatternSyntax, minimum: Int, maximum: Int?, isLazy: Bool)
}

enum PatternAssertion: Hashable {
    case start, end, wordBoundary, noWordBoundary
}

struct PatternFlags: Hashable {
    var ignoresCase = false
    var dotMatchesLineEnds = false
    var anchorsMatchLines = false
}

/// Scalars in ranges, or all others.
struct ScalarSet: Hashable {
    var ranges: [ClosedRange<UInt32>] = []
    var isInverted = false

    static let digits = ScalarSet(ranges: [0x30...0x39])
    static let word = ScalarSet(ranges: [0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A])
    static let space = ScalarSet(ranges: [0x09...0x0D, 0x20...0x20])

    func contains(_ scalar: Unicode.Scalar) -> Bool {
        ranges.contains { $0.contains(scalar.value) } != isInverted
    }

    /// The ranges of all scalars that are not in this set.
    var inverted: ScalarSet {
        var gaps: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if range.lowerBound > next { gaps.append(next...range.lowerBound - 1) }
            next = max(next, range.upperBound + 1)
        }
        gaps.append(next...0x10FFFF)
        return ScalarSet(ranges: gaps)
    }
}
