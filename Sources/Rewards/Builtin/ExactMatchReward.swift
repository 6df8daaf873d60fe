/// 1 when the answer's text is the ground truth, scalar for scalar; else 0.
public struct ExactMatchReward: ItemReward {
    /// White space at both ends does not count.
    public var trimsWhitespace: Bool
    /// One full stop at the end does not count.
    public var trimsFinalPeriod: Bool
    public var ignoresCase: Bool

    public init(trimsWhitespace: Bool = true, trimsFinalPeriod: Bool = false, ignoresCase: Bool = false) {
        self.trimsWhitespace = trimsWhitespace
        self.trimsFinalPeriod = trimsFinalPeriod
        self.ignoresCase = ignoresCase
    }

    init(_ options: inout RewardOptions) throws {
        trimsWhitespace = try options.flag("trim_whitespace", default: true)
        trimsFinalPeriod = try options.flag("trim_final_period", default: false)
        ignoresCase = try options.flag("ignore_case", default: false)
    }

    public func score(_ item: RewardRequest) -> RewardOutcome {
        let isRight = canonical(item.response).utf8.elementsEqual(canonical(item.groundTruth).utf8)
        return .scored(isRight ? 1 : 0)
    }

    private func canonical(_ text: String) -> String {
        var scalars = trimsWhitespace ? text.trimmed : Substring(text).unicodeScalars
        if trimsFinalPeriod, scalars.last == "." { scalars.removeLast() }
        return ignoresCase ? String(scalars).lowercased() : String(scalars)
    }
}
