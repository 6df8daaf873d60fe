/// What happens to prompts of more tokens than allowed (verl's `data.max_prompt_length`,
/// `data.filter_overlong_prompts` and `data.truncation`).
public struct OverlongPrompts: Hashable, Sendable {
    public enum Policy: Hashable, Sendable {
        /// Such rows are left out before training, and counted.
        case filter
        case truncate(Side)
        /// The first one ends the run.
        case error
    }

    /// Which tokens go.
    public enum Side: String, Hashable, Sendable, CaseIterable {
        /// The first ones: the end of the prompt stays.
        case left
        /// The last ones: the start of the prompt stays.
        case right
        /// The middle: half of the allowed tokens stay at each end, the odd one at the end.
        case middle
    }

    public var policy: Policy
    /// The most tokens that a prompt may have.
    public var maximumTokens: Int

    public init(_ policy: Policy, maximumTokens: Int) {
        self.policy = policy
        self.maximumTokens = maximumTokens
    }

    /// What filtering left.
    public struct Filtered: Sendable {
        public let source: PromptSubset
        /// Where the rows that were left out come from.
        public let dropped: [RowOrigin]
        /// How many of the rows that are left will be cut.
        public let cut: Int
        /// The longest prompt seen, in tokens.
        public let longest: Int
    }

    /// Leaves out the rows that are too long under `.filter`; under `.error` refuses them; else keeps all rows, to be
    /// cut by `fit`. Rows are read and measured on all cores.
    /// - Parameter tokenCount: tokens of a row's prompt, as rendered and encoded for the model.
    /// - Throws: `DatasetError.promptTooLong` under `.error`, `.empty` when no row is left, and what `tokenCount` throws;
    ///   of several errors the first row's.
    public func filter(
        _ source: any PromptSource, tokenCount: @Sendable (PromptRow) throws -> Int
    ) throws -> Filtered {
        try checkLimit()
        let refuses = policy == .error
        let measured = try Parallel.map(source.count, grain: 32) { index in
            let row = try source.row(at: index)
            let tokens = try tokenCount(row)
            if tokens > maximumTokens, refuses { throw tooLong(tokens, origin: row.origin) }
            return (tokens: tokens, origin: tokens > maximumTokens ? row.origin : nil)
        }
        var kept: [Int] = []
        var overlong: [RowOrigin] = []
        var longest = 0
        for (index, row) in measured.enumerated() {
            longest = max(longest, row.tokens)
            if let origin = row.origin { overlong.append(origin) }
            if row.origin == nil || policy != .filter { kept.append(index) }
        }
        let dropped = policy == .filter ? overlong : []
        guard !kept.isEmpty else {
            throw DatasetError(
                .empty,
                source.count == 0
                    ? "the dataset has no rows"
                    : "all \(source.count) prompts have more than \(maximumTokens) tokens (the longest has "
                        + "\(longest)); raise data.max_prompt_length")
        }
        return Filtered(
            source: PromptSubset(of: source, indices: kept), dropped: dropped, cut: overlong.count - dropped.count,
            longest: longest)
    }

    /// A prompt's tokens, cut to the allowed length under `.truncate`.
    /// - Throws: `DatasetError.promptTooLong` for a prompt that is too long under another policy.
    public func fit<Token>(_ tokens: [Token], origin: RowOrigin? = nil) throws -> [Token] {
        try checkLimit()
        guard tokens.count > maximumTokens else { return tokens }
        guard case .truncate(let side) = policy else { throw tooLong(tokens.count, origin: origin) }
        switch side {
        case .left: return Array(tokens.suffix(maximumTokens))
        case .right: return Array(tokens.prefix(maximumTokens))
        case .middle:
            let head = maximumTokens / 2
            return Array(tokens.prefix(head)) + tokens.suffix(maximumTokens - head)
        }
    }

    private func checkLimit() throws {
        guard maximumTokens > 0 else {
            throw DatasetError(
                .badSetting, "prompts of at most \(maximumTokens) tokens; data.max_prompt_length must be at least 1")
        }
    }

    private func tooLong(_ tokens: Int, origin: RowOrigin?) -> DatasetError {
        DatasetError(
            .promptTooLong,
            "the prompt has \(tokens) tokens, \(maximumTokens) are allowed; raise data.max_prompt_length, or set "
                + "data.filter_overlong_prompts or data.truncation",
            origin: origin)
    }
}
