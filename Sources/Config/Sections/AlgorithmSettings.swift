/// `algorithm`: from scores to advantages.
public struct AlgorithmSettings: Hashable, Sendable {
    public let advantageEstimator: String
    public let normAdvantageByStd: Bool
    public let useKLInReward: Bool
    public let klPenalty: KLEstimator
    public let klControl: KLControlSettings
    public let gamma: Double
    public let lambda: Double
    public let gdpoRewardKeys: [String]
    public let gdpoRewardWeights: [Double]
    public let gpgNorm: Double
    public let masksTruncated: Bool
    public let filterGroups: FilterGroupsSettings
    public private(set) var rolloutCorrection: RolloutCorrectionSettings

    /// The same with weights of tokens for samples that other weights drew, where nothing else corrects.
    public var correctingTokens: Self {
        var settings = self
        settings.rolloutCorrection = rolloutCorrection.correctingTokens
        return settings
    }

    init(_ section: inout SectionReader) {
        advantageEstimator = section.name(
            "adv_estimator", default: "grpo", from: section.names.advantageEstimators,
            doc: "How scores become advantages; grpo compares the samples of one prompt, gae asks a critic.")
        normAdvantageByStd = section.bool(
            "norm_adv_by_std_in_grpo", default: true,
            doc: "Divide GRPO's advantages by the group's standard deviation; false is Dr. GRPO.")
        useKLInReward = section.bool(
            "use_kl_in_reward", default: false,
            doc: "Take the KL divergence from the initial model off the reward, as PPO does.")
        klPenalty = section.word(
            "kl_penalty", default: .logRatio, accepts: KLEstimator.accepts,
            doc: "Its estimator; see actor.kl_loss_type.")
        gamma = section.number("gamma", default: 1, in: .unit, doc: "The discount of later rewards.")
        lambda = section.number("lam", default: 1, in: .unit, doc: "GAE's mix of bias and variance.")
        gdpoRewardKeys = section.strings(
            "gdpo_reward_keys",
            doc: "gdpo: the reward's details that are its components; none for the parts of reward.weights.")
        gdpoRewardWeights = section.numberList(
            "gdpo_reward_weights", in: .any,
            doc: "gdpo: the components' weights, in their order; none for 1, or for those of reward.weights.")
        gpgNorm = section.number("f_norm", default: 1, in: .positive, doc: "gpg: what advantages are divided by.")
        masksTruncated = section.bool(
            "mask_truncated", default: false,
            doc:
                "Learn nothing from responses that were cut at data.max_response_length; they count in their group all the same."
        )
        klControl = section.section("kl_ctrl", doc: "The weight of use_kl_in_reward.", KLControlSettings.init)
        filterGroups = section.section("filter_groups", doc: "Dynamic sampling (DAPO).", FilterGroupsSettings.init)
        rolloutCorrection = section.section(
            "rollout_correction", doc: "For a sampler whose policy is not quite the one that is trained.",
            RolloutCorrectionSettings.init)
    }
}

/// `algorithm.kl_ctrl`.
public struct KLControlSettings: Hashable, Sendable {
    public enum Kind: String, CaseIterable, Hashable, Sendable, SettingWord {
        case fixed, adaptive
    }

    public let type: Kind
    public let klCoefficient: Double
    public let horizon: Double
    public let targetKL: Double

    init(_ section: inout SectionReader) {
        type = section.choice("type", default: .fixed, doc: "Whether the weight stays, or steers towards target_kl.")
        klCoefficient = section.number("kl_coef", default: 0.001, in: .nonNegative, doc: "The weight, at first.")
        horizon = section.number(
            "horizon", default: 10_000, in: .positive, doc: "How slowly adaptive steers, in samples.")
        targetKL = section.number("target_kl", default: 0.1, in: .positive, doc: "What adaptive steers towards.")
    }
}

/// An estimator of a KL divergence from the log-probabilities of the sampled tokens. verl's names and Schulman's are
/// the same four.
public struct KLEstimator: Hashable, Sendable, SettingWord {
    public enum Value: String, Hashable, Sendable, CaseIterable {
        /// k1, the log ratio.
        case logRatio = "kl"
        case absolute = "abs"
        /// k2, half the square of the log ratio.
        case meanSquared = "mse"
        /// k3.
        case lowVariance = "low_var_kl"
    }

    public let value: Value
    /// The gradient is that of k2, whatever the value (`+`).
    public let usesSquaredGradient: Bool

    public static let logRatio = KLEstimator(.logRatio)
    public static let lowVariance = KLEstimator(.lowVariance)

    public init(_ value: Value, usesSquaredGradient: Bool = false) {
        self.value = value
        self.usesSquaredGradient = usesSquaredGradient
    }

    static let accepts = "kl (k1), abs, mse (k2) or low_var_kl (k3), each with or without a + at the end"

    init?(word: String) {
        usesSquaredGradient = word.hasSuffix("+")
        let name = usesSquaredGradient ? String(word.dropLast()) : word
        let schulman: [String: Value] = ["k1": .logRatio, "k2": .meanSquared, "k3": .lowVariance]
        guard let value = schulman[name] ?? Value(rawValue: name) else { return nil }
        self.value = value
    }

    /// verl's name, as in `low_var_kl+`.
    public var word: String { value.rawValue + (usesSquaredGradient ? "+" : "") }
}
