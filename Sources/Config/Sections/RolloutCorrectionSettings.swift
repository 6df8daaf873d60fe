/// `algorithm.rollout_correction`: for a sampler whose policy is not quite the one that is trained.
public struct RolloutCorrectionSettings: Hashable, Sendable {
    public enum BypassLoss: String, CaseIterable, Hashable, Sendable, SettingWord {
        case ppoClip = "ppo_clip"
        case reinforce
    }

    /// token or sequence; nil for no weights.
    public private(set) var level: String?
    public let threshold: String
    public let normalizes: Bool
    public let rejection: String?
    public let rejectionThreshold: String?
    public let bypasses: Bool
    public let bypassLoss: BypassLoss

    /// Whether anything is weighed or rejected.
    public var isOn: Bool { level != nil || rejection != nil }

    /// The same with weights of tokens, where nothing else corrects.
    var correctingTokens: Self {
        var settings = self
        if !isOn, !bypasses { settings.level = "token" }
        return settings
    }

    init(_ section: inout SectionReader) {
        level = section.optionalName(
            "rollout_is", from: ["token", "sequence"], example: nil,
            doc: "Importance weights of tokens, or of whole sequences by the product over their tokens; null for none.")
        threshold = section.number(
            text: "rollout_is_threshold", default: "2.0", accepts: "an upper bound, as 2.0, or a range, as \"0.5_2.0\"",
            doc:
                "Weights are cut from above at one number (truncated importance sampling), and zeroed outside a range (IcePop)."
        )
        normalizes = section.bool(
            "rollout_is_batch_normalize", default: false, doc: "Divide the weights by their mean over the batch.")
        rejection = section.optionalString(
            "rollout_rs",
            doc:
                "Rules that tokens must pass to be learned, as token_k1 or seq_mean_k3, with commas between them: token_, "
                + "seq_sum_, seq_mean_ and seq_max_ with k1, k2 or k3.")
        rejectionThreshold = section.optionalText(
            number: "rollout_rs_threshold",
            accepts: "an upper bound a rule, or a range for k1, as \"0.5_2.0\", with commas between them",
            doc: "The rules' bounds.")
        bypasses = section.bool(
            "bypass_mode", default: false,
            doc:
                "Take the sampler's log-probabilities for the old policy's: no pass to compute those, and the correction is "
                + "done in every micro-batch of the loss.")
        bypassLoss = section.choice(
            "loss_type", default: .ppoClip, doc: "bypass_mode: the loss, PPO's clip or REINFORCE with the weights.")
    }
}

/// `algorithm.filter_groups`: DAPO's dynamic sampling.
public struct FilterGroupsSettings: Hashable, Sendable {
    public let enable: Bool
    public let metric: String
    public let maxGenBatches: Int

    init(_ section: inout SectionReader) {
        enable = section.bool(
            "enable", default: false,
            doc: "Leave out prompts whose samples are all worth the same, and sample more until the batch is full.")
        metric = section.string(
            "metric", default: "score", doc: "What must differ within a group: score, or one of the reward's details.")
        maxGenBatches = section.int(
            "max_num_gen_batches", default: 10, in: 0...1_048_576,
            doc: "The most batches of prompts that a step samples; then it learns from what it has. 0 for no bound.")
    }
}

/// `reward.overlong_buffer`: DAPO's soft punishment of overlong responses.
public struct OverlongBufferSettings: Hashable, Sendable {
    public let enable: Bool
    public let length: Int
    public let penaltyFactor: Double

    init(_ section: inout SectionReader) {
        enable = section.bool("enable", default: false, doc: "Whether long responses lose some of their score.")
        length = section.int(
            "len", default: 512, in: 1...16_777_216,
            doc: "The tokens before data.max_response_length over which the loss grows from nothing.")
        penaltyFactor = section.number(
            "penalty_factor", default: 1, in: .nonNegative,
            doc: "What a response of data.max_response_length tokens loses.")
    }
}
