/// The names that the caller's registries know: a setting that names an algorithm or a reward is checked against them,
/// so that a new registry line is a new allowed value here.
public struct KnownNames: Sendable {
    public var advantageEstimators: [String]
    /// Those estimators that compare the samples of one prompt, and so need `rollout.n` above 1.
    public var groupAdvantageEstimators: Set<String>
    public var policyLosses: [String]
    public var rewards: [String]
    /// Those rewards that need `reward.pattern`.
    public var rewardsWithPattern: Set<String>

    public init(
        advantageEstimators: [String] = ["grpo"], groupAdvantageEstimators: Set<String> = ["grpo"],
        policyLosses: [String] = ["vanilla"],
        rewards: [String] = ["exact_match", "number_match", "bare_number", "regex", "format"],
        rewardsWithPattern: Set<String> = ["regex"]
    ) {
        self.advantageEstimators = advantageEstimators
        self.groupAdvantageEstimators = groupAdvantageEstimators
        self.policyLosses = policyLosses
        self.rewards = rewards
        self.rewardsWithPattern = rewardsWithPattern
    }
}
