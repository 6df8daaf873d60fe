extension Decoder {
    /// More than this is made to fill the memory: real decoders replace a mark by a blank.
    static let largestGrowth = 1024.0

    /// How many times as long as its tokens a text can get by replacements, at most. Decoding has no way to fail, so this
    /// is asked when the file is read.
    var growth: Double {
        switch self {
        case .sequence(let steps): steps.reduce(1) { $0 * $1.growth }
        case .replace(.literal(let wanted), let content) where !wanted.isEmpty:
            max(1, (Double(content.count) / Double(wanted.count)).rounded(.up))
        // It may match single bytes, or nothing between any two.
        case .replace(_, let content): Double(content.count) + 1
        case .byteLevel: 2
        default: 1
        }
    }
}
