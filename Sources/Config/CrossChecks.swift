import OrderedCollections

/// Settings that are right alone and wrong together. Every check looks at values only, not at who set them, so that a
/// resolved configuration passes when its recipe did.
struct CrossChecks: LedgerChecks {
    let config: RunConfig
    let ledger: Ledger

    init(_ config: RunConfig, _ ledger: Ledger) {
        self.config = config
        self.ledger = ledger
    }

    func run() {
        checkBatches()
        checkLengths()
        checkMix()
        checkArithmetic()
        checkPolicyLoss()
        checkPolicyLossNumbers()
        checkKL()
        checkTurns()
        checkEstimator()
        checkCritic()
        checkRolloutCorrection()
        checkDynamicSampling()
        checkCheckpointing(config.model)
        checkLoRA(config.model)
        checkTypes(config.model, config.actor.fsdp, in: "actor")
        checkSchedule(config.actor.optim, config.trainer, in: "actor")
        if config.hasCritic { checkSchedule(config.critic.optim, config.trainer, in: "critic") }
        checkSharding()
        checkModelParallel()
        checkSampling()
        checkPenalties()
        checkEngine()
        checkSpeculation()
        checkMultiTurn()
        checkReward()
        checkAsync()
        checkMapping()
        checkTrainer(config.trainer, valFiles: config.data.valFiles)
        checkCluster(config.cluster, config.trainer, config.device)
        refuse(
            config.cluster.kind != .local && config.rollout.gpusPerNode != nil, "rollout.n_gpus_per_node",
            "cluster.type", "samplers on GPUs of their own are started beside a run on this host only",
            remedy: "make cluster.type local, or remove it")
    }

    // MARK: Checks

    private func checkBatches() {
        let (batch, mini) = (config.data.trainBatchSize, config.actor.ppoMiniBatchSize)
        refuse(
            mini > batch, "data.train_batch_size", "actor.ppo_mini_batch_size",
            "a mini-batch has more prompts than a step", remedy: "make actor.ppo_mini_batch_size at most \(batch)")
        let smaller = (1...max(1, min(mini, batch))).last { batch % $0 == 0 } ?? 1
        refuse(
            mini <= batch && batch % mini != 0, "data.train_batch_size", "actor.ppo_mini_batch_size",
            "a step's prompts do not make whole mini-batches",
            remedy: "make actor.ppo_mini_batch_size a divisor of \(batch), as \(smaller)")
        refuse(
            config.rollout.n < 2 && ledger.names.groupAdvantageEstimators.contains(config.algorithm.advantageEstimator),
            "rollout.n", "algorithm.adv_estimator",
            "it compares the samples of a prompt, and one has none to compare with",
            remedy: "make rollout.n 2 or more")
    }

    private func checkLengths() {
        let longest = config.data.maxPromptLength + config.data.maxResponseLength
        refuse(
            longest > config.actor.ppoMaxTokenLenPerGPU, "actor.ppo_max_token_len_per_gpu", "data.max_response_length",
            "a prompt of data.max_prompt_length = \(config.data.maxPromptLength) tokens with such a response would fit no "
                + "micro-batch",
            remedy: "make actor.ppo_max_token_len_per_gpu at least \(longest)")
    }

    private func checkMix() {
        let data = config.data
        refuse(
            !data.trainWeights.isEmpty && data.trainWeights.count != data.trainFiles.count, "data.train_weights",
            "data.train_files", "\(data.trainWeights.count) weights for \(data.trainFiles.count) entries",
            remedy: "give each entry of data.train_files a weight (a pattern is one entry), or none")
    }

    private func checkArithmetic() {
        let settings = config.data.arithmetic
        refuse(
            settings.minOperand > settings.maxOperand, "data.arithmetic.min_operand", "data.arithmetic.max_operand",
            "no operand is left", remedy: "make max_operand the greater")
        if let least = settings.minAnswer, let greatest = settings.maxAnswer {
            refuse(
                least > greatest, "data.arithmetic.min_answer", "data.arithmetic.max_answer", "no answer is left",
                remedy: "make max_answer the greater")
        }
        if !settings.template.contains("{problem}") {
            problem(
                "data.arithmetic.template", "the prompt would not hold the problem", remedy: "write {problem} in it")
        }
        if settings.forms.isEmpty {
            problem("data.arithmetic.forms", "no form is left", remedy: "give at least one, as [\"+\"]")
        }
    }

    private func checkPolicyLoss() {
        let actor = config.actor
        let high = actor.clipRatioHigh == nil ? "actor.clip_ratio" : "actor.clip_ratio_high"
        let low = actor.clipRatioLow == nil ? "actor.clip_ratio" : "actor.clip_ratio_low"
        refuse(
            actor.clipRatioC <= 1 + actor.clipHigh, "actor.clip_ratio_c", high,
            "dual clip would begin inside the clip range",
            remedy: "make actor.clip_ratio_c more than \(1 + actor.clipHigh)")
        if actor.clipLow > 1 {
            problem(low, "a ratio cannot fall below 0", remedy: "give at most 1, or set actor.clip_ratio_low")
        }
        refuse(
            actor.clipRatioLow != nil && actor.clipRatioHigh != nil && actor.clipLow > actor.clipHigh,
            "actor.clip_ratio_low", "actor.clip_ratio_high",
            "clipping is tighter above than below, against clip-higher",
            remedy: "make actor.clip_ratio_high the greater, or both equal")
        refuse(
            actor.lossScaleFactor != nil && actor.lossAggregation != .sequenceMeanTokenSumNorm,
            "actor.loss_scale_factor", "actor.loss_agg_mode", "only seq-mean-token-sum-norm is scaled",
            remedy: "remove actor.loss_scale_factor or change the mode")
    }

    private func checkKL() {
        warn(
            config.actor.useKLLoss && config.algorithm.useKLInReward, "actor.use_kl_loss", "algorithm.use_kl_in_reward",
            "the KL divergence is charged twice", remedy: "turn one off")
        warn(
            config.actor.useKLLoss && config.actor.klLossCoefficient == 0, "actor.use_kl_loss", "actor.kl_loss_coef",
            "the reference model is computed for a loss of weight 0", remedy: "turn actor.use_kl_loss off")
        let rests = config.reference.paramOffload == true
        warn(
            rests && !config.needsReferenceModel, "reference.param_offload", "actor.use_kl_loss",
            "nothing compares with a reference", remedy: "remove it, or make actor.use_kl_loss true")
        warn(
            rests && config.needsReferenceModel && config.model.usesLoRA, "reference.param_offload", "model.lora_rank",
            "the reference is the model below the adapter, with no weights of its own", remedy: "remove it")
    }

    private func checkTurns() {
        guard config.trainer.takesTurns == true else { return }
        let fsdp = config.actor.fsdp, hasCritic = config.hasCritic && !config.critic.sharesTrunk
        let hasReference = config.needsReferenceModel && !config.model.usesLoRA
        refuse(
            !hasCritic && !hasReference && fsdp.optimizerOffload && fsdp.optimizerOffloadRatio == 1
                && (fsdp.paramOffload || config.model.paramDType != .float32 || config.model.dtype == .float32),
            "trainer.take_turns", "actor.fsdp_config.optimizer_offload",
            "the optimizer's states are in host memory all the time, and no critic or reference is there",
            remedy: "remove one of the two")
        refuse(
            hasReference && !hasCritic && config.reference.paramOffload == false && fsdp.optimizerOffload
                && fsdp.optimizerOffloadRatio == 1 && fsdp.paramOffload, "trainer.take_turns",
            "reference.param_offload",
            "nothing is left that could rest", remedy: "remove one of the two")
    }

    private func checkSharding() {
        let actor = config.actor
        checkSharding(actor.fsdp, in: "actor")
        refuse(
            !actor.useDynamicBatchSize && actor.ppoMicroBatchSizePerGPU == nil, "actor.use_dynamic_bsz",
            "actor.ppo_micro_batch_size_per_gpu", "nothing says how large a micro-batch is",
            remedy: "set actor.ppo_micro_batch_size_per_gpu, or actor.use_dynamic_bsz true")
        refuse(
            actor.useDynamicBatchSize && actor.ppoMicroBatchSizePerGPU != nil, "actor.ppo_micro_batch_size_per_gpu",
            "actor.use_dynamic_bsz", "micro-batches are cut by tokens",
            remedy: "set actor.use_dynamic_bsz false, or remove actor.ppo_micro_batch_size_per_gpu")
    }

    private func checkSampling() {
        let (rollout, validation) = (config.rollout, config.rollout.valKwargs)
        refuse(
            rollout.temperature == 0 && rollout.n > 1, "rollout.temperature", "rollout.n",
            "greedy sampling gives the same response every time, and a group of equals teaches nothing",
            remedy: "make rollout.temperature more than 0")
        let filters: [(name: String, isOn: Bool)] = [
            ("rollout.top_k", rollout.topK > 0), ("rollout.top_p", rollout.topP < 1),
            ("rollout.min_p", rollout.minP > 0),
        ]
        for filter in filters {
            warn(
                rollout.temperature == 0 && filter.isOn, "rollout.temperature", filter.name,
                "greedy sampling takes the likeliest token whatever this says", remedy: "remove one")
        }
        if rollout.topK == 0 {
            problem("rollout.top_k", "no token to sample among", remedy: "give -1 for all, or 1 or more")
        }
        if validation.topK == 0 {
            problem("rollout.val_kwargs.top_k", "no token to sample among", remedy: "give -1 for all, or 1 or more")
        }
        refuse(
            !validation.doSample && validation.n > 1, "rollout.val_kwargs.n", "rollout.val_kwargs.do_sample",
            "greedy sampling gives the same response every time",
            remedy: "make rollout.val_kwargs.n 1 or do_sample true")
        for name in ["temperature", "top_p", "top_k"] where !validation.doSample {
            warn(
                ledger.isChanged("rollout.val_kwargs.\(name)"), "rollout.val_kwargs.\(name)",
                "rollout.val_kwargs.do_sample", "greedy validation takes the likeliest token whatever this says",
                remedy: "make do_sample true, or remove it")
        }
        refuse(
            validation.doSample && validation.temperature == 0, "rollout.val_kwargs.temperature",
            "rollout.val_kwargs.do_sample", "a temperature of 0 does not sample",
            remedy: "make do_sample false for greedy, or the temperature more than 0")
    }

    /// The settings that say where scores come from.
    var rewardSources: [(name: String, isSet: Bool)] {
        let reward = config.reward
        return [
            ("reward.type", reward.type != nil), ("reward.weights", !reward.weights.isEmpty),
            ("reward.custom_reward_function.path", reward.customRewardFunction != nil),
            ("reward.model.path", reward.model != nil), ("reward.judge.url", reward.judge != nil),
        ]
    }

    private func checkReward() {
        let reward = config.reward, sources = rewardSources
        let set = sources.filter(\.isSet)
        let isEnvironments = config.rollout.multiTurn.enable && config.environment.score == .environment
        if set.count > 1 {
            refuse(true, set[0].name, set[1].name, "two sources of one score", remedy: "keep one")
        } else if set.isEmpty, !isEnvironments, !sources.contains(where: { ledger.refused.contains($0.name) }) {
            let remedy =
                "set reward.type to \(alternatives(ledger.names.rewards)), or reward.weights, or "
                + "reward.custom_reward_function.path, or reward.model.path, or reward.judge.url"
            ledger.refuse(.missing, at: section("reward"), "reward", "no reward is set", remedy: remedy)
        }
        refuse(
            reward.customRewardFunction == nil && ledger.isChanged("reward.custom_reward_function.name"),
            "reward.custom_reward_function.name", "reward.custom_reward_function.path", "a function of no file",
            remedy: "set reward.custom_reward_function.path")
        checkJudge()
        let named = Set(reward.type.map { [$0] } ?? []).union(reward.weights.keys)
        let patterned = !named.isDisjoint(with: ledger.names.rewardsWithPattern)
        let source = set.first?.name ?? "reward.type"
        refuse(
            !named.isEmpty && reward.pattern != nil && !patterned, "reward.pattern", source,
            "that reward has no pattern",
            remedy: "remove reward.pattern")
        refuse(
            named.contains("regex") && reward.pattern == nil && ledger.names.rewardsWithPattern.contains("regex"),
            "reward.pattern", source, "the regex reward has nothing to match", remedy: "set reward.pattern")
        refuse(
            reward.onFailure == .score && reward.failureScore == nil, "reward.on_failure", "reward.failure_score",
            "a failure has no score", remedy: "set reward.failure_score")
        refuse(
            reward.onFailure != .score && reward.failureScore != nil, "reward.failure_score", "reward.on_failure",
            "failures are not scored", remedy: "remove reward.failure_score, or make reward.on_failure score")
    }

}
