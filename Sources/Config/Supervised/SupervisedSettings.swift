/// `train` of supervised runs.
public struct SupervisedTrainSettings: Hashable, Sendable {
    public let maxTokenLenPerGPU: Int
    public let gradClip: Double?
    public let sharePrefix: Bool
    public let routerAuxLossCoefficient: Double
    public let optim: OptimizerSettings
    public let fsdp: ShardingSettings
    /// Ranks that share each sequence's tokens.
    public let ulyssesSize: Int
    public let megatron: ModelParallelSettings

    init(_ section: inout SectionReader) {
        maxTokenLenPerGPU = section.int(
            "max_token_len_per_gpu", default: 16_384, in: 1...134_217_728,
            doc: "The most tokens of a micro-batch: the bound on memory. The loss does not depend on it.")
        gradClip = section.optionalNumber(
            "grad_clip", default: 1, in: .positive, doc: "The greatest norm of a gradient; null for no clipping.")
        sharePrefix = section.bool(
            "share_prefix", default: true,
            doc: "Compute what sequences of a micro-batch begin with once, as the prompt of a pair.")
        routerAuxLossCoefficient = section.number(
            "router_aux_loss_coef", default: 0, in: .nonNegative,
            doc: "Mixtures of experts: the weight of the loss that pulls experts towards equal shares; 0 for none.")
        ulyssesSize = section.int(
            "ulysses_sequence_parallel_size", default: 1, in: 1...1024,
            doc:
                "Ranks that share each sequence's tokens, and while attending its heads (sp): for sequences whose activations fit "
                + "no device.")
        optim = section.section("optim", doc: "AdamW and the learning rate's schedule.", OptimizerSettings.init)
        fsdp = section.section(
            "fsdp_config", doc: "Where the training's states lie, and in which types.", ShardingSettings.init)
        megatron = section.section(
            "megatron", doc: "Ranks that share the model itself. What is left of the ranks divides the batches.",
            ModelParallelSettings.init)
    }
}

/// `eval` of supervised runs.
public struct SupervisedEvalSettings: Hashable, Sendable {
    public let maxNewTokens: Int

    init(_ section: inout SectionReader) {
        maxNewTokens = section.int(
            "max_new_tokens", default: 0, in: 0...16_777_216,
            doc:
                "Also answer the held-out prompts, greedily and in so many tokens at most, and report how many answers are "
                + "the reference to the letter; 0 for not.")
    }
}

/// `sft`.
public struct SFTSettings: Hashable, Sendable {
    public enum Loss: String, CaseIterable, Hashable, Sendable, SettingWord { case nll, dft }

    public let lossType: Loss

    init(_ section: inout SectionReader) {
        lossType = section.choice(
            "loss_type", default: .nll,
            doc: "nll is the negative log-likelihood; dft weights each token by its own probability.")
    }
}

/// `dpo`.
public struct DPOSettings: Hashable, Sendable {
    /// By TRL's names; those that sort over a batch would depend on how it is split.
    public enum Loss: String, CaseIterable, Hashable, Sendable, SettingWord {
        case sigmoid, hinge, ipo, robust, discopop, sft
        case exoPair = "exo_pair"
        case ncaPair = "nca_pair"
        case bcoPair = "bco_pair"
        case sppoHard = "sppo_hard"
        case apoZero = "apo_zero"
        case apoDown = "apo_down"
        case sigmoidNorm = "sigmoid_norm"
    }

    public let lossTypes: [Loss]
    /// As many as `lossTypes`, or none for 1 each.
    public let lossWeights: [Double]
    public let beta: Double
    public let labelSmoothing: Double

    init(_ section: inout SectionReader) {
        lossTypes = section.choices(
            "loss_type", default: [.sigmoid],
            doc:
                "The loss, or several that are summed; ipo is per token, as in TRL; sft is the chosen answers' likelihood."
        )
        lossWeights = section.numberList("loss_weights", in: .any, doc: "The weight of each loss; [] for 1 each.")
        beta = section.number(
            "beta", default: 0.1, in: .positive,
            doc: "How strongly the model is held to where it began; for ipo the strength of its regularisation.")
        labelSmoothing = section.number(
            "label_smoothing", default: 0, in: NumberRange(lower: 0, upper: 0.5, isUpperOpen: true),
            doc:
                "The chance that a pair's labels are the wrong way round: with sigmoid conservative DPO, with robust and "
                + "exo_pair their own.")
    }
}

/// `reward_model`.
public struct RewardModelSettings: Hashable, Sendable {
    public let centerRewardsCoefficient: Double

    init(_ section: inout SectionReader) {
        centerRewardsCoefficient = section.number(
            "center_rewards_coefficient", default: 0, in: .nonNegative,
            doc: "The weight of a pull that keeps a pair's rewards around 0 (0.01 is usual); 0 for none.")
    }
}
