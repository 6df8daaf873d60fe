/// The names that the caller's registries know: a setting that names an algorithm or a reward is checked against them,
/// so that a new registry line is a new allowed value here.
public struct KnownNames: Sendable {
    public var advantageEstimators: [String]
    /// Those estimators that compare the samples of one prompt, and so need `rollout.n` above 1.
    public var groupAdvantageEstimators: Set<String>
    public var policyLosses: [String]
    /// Estimators that need the Σπ² of every token's distribution.
    public var spreadAdvantageEstimators: Set<String>
    /// Rules of `algorithm.rollout_correction.rollout_rs`.
    public var rejectionRules: [String]
    public var rewards: [String]
    /// Those rewards that need `reward.pattern`.
    public var rewardsWithPattern: Set<String>

    public init(
        advantageEstimators: [String] = ["grpo"], groupAdvantageEstimators: Set<String> = ["grpo"],
        policyLosses: [String] = ["vanilla"], spreadAdvantageEstimators: Set<String> = [],
        rejectionRules: [String] = ["token_k1", "token_k2", "token_k3", "seq_mean_k1", "seq_mean_k3"],
        rewards: [String] = ["exact_match", "number_match", "bare_number", "regex", "format"],
        rewardsWithPattern: Set<String> = ["regex"]
    ) {
        self.advantageEstimators = advantageEstimators
        self.groupAdvantageEstimators = groupAdvantageEstimators
        self.policyLosses = policyLosses
        self.spreadAdvantageEstimators = spreadAdvantageEstimators
        self.rejectionRules = rejectionRules
        self.rewards = rewards
        self.rewardsWithPattern = rewardsWithPattern
    }
}
