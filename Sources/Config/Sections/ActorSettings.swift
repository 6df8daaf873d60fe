/// `actor`: the policy's update.
public struct ActorSettings: Hashable, Sendable {
    public enum LossAggregation: String, CaseIterable, Hashable, Sendable, SettingWord {
        case tokenMean = "token-mean"
        case tokenSum = "token-sum"
        case sequenceMeanTokenSum = "seq-mean-token-sum"
        case sequenceMeanTokenMean = "seq-mean-token-mean"
        case sequenceMeanTokenSumNorm = "seq-mean-token-sum-norm"
    }

    public let ppoMiniBatchSize: Int
    public let useDynamicBatchSize: Bool
    public let ppoMaxTokenLenPerGPU: Int
    public let ppoMicroBatchSizePerGPU: Int?
    public let ppoEpochs: Int
    public let clipRatio: Double
    public let clipRatioLow: Double?
    public let clipRatioHigh: Double?
    public let clipRatioC: Double
    public let lossAggregation: LossAggregation
    public let lossScaleFactor: Double?
    public let policyLoss: String
    public let policyLossNumbers: PolicyLossNumbers
    public let entropyCoefficient: Double
    public let useKLLoss: Bool
    public let klLossCoefficient: Double
    public let klLossType: KLEstimator
    public let gradClip: Double?
    public let routerAuxLossCoefficient: Double
    public let shuffle: Bool
    public let sharePrefix: Bool
    public let optim: OptimizerSettings
    public let fsdp: ShardingSettings
    /// Ranks that share each sequence's tokens.
    public let ulyssesSize: Int
    public let megatron: ModelParallelSettings

    /// The ratio is clipped to `1 - clipLow ... 1 + clipHigh`.
    public var clipLow: Double { clipRatioLow ?? clipRatio }
    public var clipHigh: Double { clipRatioHigh ?? clipRatio }

    init(_ section: inout SectionReader) {
        ppoMiniBatchSize = section.int(
            "ppo_mini_batch_size", default: 64, in: 1...1_048_576,
            doc: "Prompts an optimizer step; as in verl it counts prompts, not their rollout.n samples.")
        useDynamicBatchSize = section.bool(
            "use_dynamic_bsz", default: true,
            doc: "Cut micro-batches by tokens; false for micro-batches of ppo_micro_batch_size_per_gpu samples.")
        ppoMaxTokenLenPerGPU = section.int(
            "ppo_max_token_len_per_gpu", default: 16_384, in: 1...134_217_728,
            doc: "The most tokens of a micro-batch: the bound on memory. The loss does not depend on it.")
        ppoMicroBatchSizePerGPU = section.optionalInt(
            "ppo_micro_batch_size_per_gpu", in: 1...1_048_576,
            doc: "Samples of a micro-batch where use_dynamic_bsz is false. The loss does not depend on it.")
        ppoEpochs = section.int("ppo_epochs", default: 1, in: 1...1024, doc: "Passes over each batch of samples.")
        clipRatio = section.number(
            "clip_ratio", default: 0.2, in: .nonNegative,
            doc: "PPO's clip: the ratio of new to old probability counts within 1 - clip_ratio and 1 + clip_ratio.")
        clipRatioLow = section.optionalNumber(
            "clip_ratio_low", in: .unit, doc: "The clip below 1; null for clip_ratio.")
        clipRatioHigh = section.optionalNumber(
            "clip_ratio_high", in: .nonNegative, doc: "The clip above 1 (clip-higher); null for clip_ratio.")
        clipRatioC = section.number(
            "clip_ratio_c", default: 3, in: .above(1),
            doc: "Dual clip: with a negative advantage, the loss counts the ratio up to this.")
        lossAggregation = section.choice(
            "loss_agg_mode", default: .tokenMean, doc: "How token losses become one number, over the whole mini-batch.")
        lossScaleFactor = section.optionalNumber(
            "loss_scale_factor", in: .positive,
            doc: "What seq-mean-token-sum-norm divides by; null for data.max_response_length.")
        policyLoss = section.name(
            "policy_loss", default: "vanilla", from: section.names.policyLosses,
            doc: "The policy's loss; vanilla is PPO's clipped objective with dual clip.")
        policyLossNumbers = PolicyLossNumbers(&section)
        entropyCoefficient = section.number(
            "entropy_coeff", default: 0, in: .any, doc: "The weight of an entropy bonus; 0 for none.")
        useKLLoss = section.bool(
            "use_kl_loss", default: false,
            doc: "Add the KL divergence from the initial model to the loss, as GRPO does.")
        klLossCoefficient = section.number(
            "kl_loss_coef", default: 0.001, in: .nonNegative, doc: "Its weight.")
        klLossType = section.word(
            "kl_loss_type", default: .lowVariance, accepts: KLEstimator.accepts,
            doc: "Its estimator, by verl's names or by Schulman's (k1, k2, k3); a + at the end takes k2's gradient.")
        gradClip = section.optionalNumber(
            "grad_clip", default: 1, in: .positive, doc: "The greatest norm of a gradient; null for no clipping.")
        routerAuxLossCoefficient = section.number(
            "router_aux_loss_coef", default: 0, in: .nonNegative,
            doc: "Mixtures of experts: the weight of the loss that pulls experts towards equal shares; 0 for none.")
        shuffle = section.bool("shuffle", default: false, doc: "Shuffle a batch before it is cut into mini-batches.")
        sharePrefix = section.bool(
            "share_prefix", default: true, doc: "Compute the prompt of a group once, not once for each of its samples.")
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

/// `actor.optim`.
public struct OptimizerSettings: Hashable, Sendable {
    public enum Schedule: String, CaseIterable, Hashable, Sendable, SettingWord {
        case constant, linear, cosine
    }

    /// The type of AdamW's moments.
    public enum StateDType: String, CaseIterable, Hashable, Sendable, SettingWord {
        case float32, bfloat16, int8
    }

    public let lr: Double
    public let betas: [Double]
    public let eps: Double
    public let weightDecay: Double
    public let decaysVectors: Bool
    public let stateDType: StateDType
    public let stochasticRounding: Bool
    public let lrWarmupSteps: Int?
    public let lrWarmupStepsRatio: Double
    public let schedule: Schedule
    public let minLRRatio: Double
    public let totalTrainingSteps: Int?

    init(_ section: inout SectionReader) { self.init(&section, lr: 1e-6) }

    /// - Parameter rate: the default learning rate.
    init(_ section: inout SectionReader, lr rate: Double) {
        lr = section.number("lr", default: rate, in: .nonNegative, doc: "The greatest learning rate.")
        betas = section.numbers(
            "betas", default: [0.9, 0.999], in: NumberRange(lower: 0, upper: 1, isUpperOpen: true),
            doc: "AdamW's decay of the first and of the second moment.")
        eps = section.number("eps", default: 1e-8, in: .positive, doc: "AdamW's epsilon.")
        weightDecay = section.number("weight_decay", default: 0.01, in: .nonNegative, doc: "Decoupled weight decay.")
        decaysVectors = section.bool(
            "decay_vectors", default: true, doc: "Whether norms and biases decay too; false exempts them.")
        stateDType = section.choice(
            "state_dtype", default: .float32,
            doc:
                "The type of both moments: 4, 2 or 1 bytes a parameter each. int8 is codes with a scale for each 256; small "
                + "tensors stay float32.")
        stochasticRounding = section.bool(
            "stochastic_rounding", default: true,
            doc:
                "Round what is trained or kept in bfloat16 up or down by chance: to the nearest, small steps would be lost."
        )
        lrWarmupSteps = section.optionalInt(
            "lr_warmup_steps", in: 0...Int.max,
            doc: "Steps over which the learning rate rises from 0; null for lr_warmup_steps_ratio.")
        lrWarmupStepsRatio = section.number(
            "lr_warmup_steps_ratio", default: 0, in: .unit, doc: "The same as a share of all steps.")
        schedule = section.choice(
            "lr_scheduler_type", default: .constant, doc: "The learning rate after that; linear and cosine fall.")
        minLRRatio = section.number(
            "min_lr_ratio", default: 0, in: .unit, doc: "Where linear and cosine end, as a share of lr.")
        totalTrainingSteps = section.optionalInt(
            "total_training_steps", in: 1...Int.max, doc: "The schedule's length; null for the run's.")
    }
}

/// `actor.fsdp_config`.
public struct ShardingSettings: Hashable, Sendable {
    /// Ranks that share one set of states out among them; -1: all.
    public let fsdpSize: Int
    public let reshardAfterForward: Bool
    public let forwardPrefetch: Bool
    public let reduceDType: ModelSettings.DType
    public let paramOffload: Bool
    public let optimizerOffload: Bool
    public let optimizerOffloadRatio: Double
    public let gradDType: ModelSettings.DType

    init(_ section: inout SectionReader) {
        fsdpSize = section.int(
            "fsdp_size", default: 1, in: -1...65_536,
            doc:
                "Ranks that share weights, gradients and the optimizer's states out among them: 1 for none (every rank has all of "
                + "them), -1 for all that divide the batches, a divisor of those for several such sets side by side."
        )
        reshardAfterForward = section.bool(
            "reshard_after_forward", default: true,
            doc:
                "Free a layer's whole weights after it has run and bring them together again for backward (FULL_SHARD); false "
                + "keeps them until the step is done (SHARD_GRAD_OP).")
        forwardPrefetch = section.bool(
            "forward_prefetch", default: true, doc: "Bring the next layer's weights together while a layer runs.")
        reduceDType = section.choice(
            "reduce_dtype", default: .float32,
            doc: "The type in which gradients travel between ranks; bfloat16 is half as much and less exact.")
        paramOffload = section.bool(
            "param_offload", default: false,
            doc: "Keep the float32 master weights in the host's memory; each step streams them through the GPU.")
        optimizerOffload = section.bool(
            "optimizer_offload", default: false, doc: "The same for the optimizer's moments.")
        optimizerOffloadRatio = section.number(
            "optimizer_offload_ratio", default: 1, in: .unit,
            doc:
                "The share of the moments that optimizer_offload means. What backward has freed by then takes a few GiB of them at no cost."
        )
        gradDType = section.choice(
            "grad_dtype", default: .float32,
            doc:
                "The type that gradients of micro-batches are summed in; bfloat16 takes half the memory and is less exact."
        )
    }
}
