/// 1 when the answer matches a pattern (`Pattern` says which it understands) and, on request, one of its groups is the
/// ground truth; else 0.
public struct RegexReward: ItemReward {
    public let pattern: Pattern
    /// Whether the pattern must match all of the answer (white space at both ends aside), not just a part.
    public let matchesWhole: Bool
    /// The group (0 is the whole match) that must be the ground truth, white space at both ends aside.
    public let group: Int?

    /// - Throws: `RewardError.badPattern`; `.badSetting` when the pattern has no such group.
    public init(_ pattern: String, matchesWhole: Bool = false, group: Int? = nil) throws {
        self.pattern = try Pattern(pattern)
        self.matchesWhole = matchesWhole
        self.group = group
        if let group, !(0...self.pattern.groupCount).contains(group) {
            throw RewardError(
                .badSetting, "group \(group) of a pattern that has \(self.pattern.groupCount): '\(pattern)'")
        }
    }

    init(_ options: inout RewardOptions) throws {
        let pattern = options.text("pattern", default: "")
        guard !pattern.isEmpty else { throw RewardError(.badSetting, "reward 'regex' needs a pattern") }
        let group = try options.integer("group", default: -1)
        try self.init(
            pattern, matchesWhole: try options.flag("whole", default: false), group: group == -1 ? nil : group)
    }

    /// Fails as `timedOut` when the answer is too long for the pattern's bound on work.
    public func score(_ item: RewardRequest) -> RewardOutcome {
        let match: Pattern.Match?
        do {
            match =
                try matchesWhole
                ? pattern.wholeMatch(in: String(item.response.trimmed)) : pattern.firstMatch(in: item.response)
        } catch {
            return .failed(RewardFailure(.timedOut, "\(error)"))
        }
        guard let match else { return .scored(0) }
        guard let group else { return .scored(1) }
        let isRight = match.groups[group].map { $0.trimmed.elementsEqual(item.groundTruth.trimmed) } ?? false
        return .scored(isRight ? 1 : 0)
    }
}
