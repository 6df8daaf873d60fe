import OrderedCollections

/// Estimators, the critic, and what is done to a batch before it is learned.
extension CrossChecks {
    /// A number that the chosen loss does not read would be heeded by nobody.
    func checkPolicyLossNumbers() {
        let loss = config.policyLoss
        for (key, losses) in PolicyLossNumbers.readers where !losses.contains(loss) {
            refuse(
                ledger.isChanged("actor." + key), "actor." + key, "actor.policy_loss", "that loss has no such number",
                remedy: "make actor.policy_loss \(alternatives(losses)), or remove actor.\(key)")
        }
        let numbers = config.actor.policyLossNumbers
        refuse(
            numbers.clipCovLower >= numbers.clipCovUpper, "actor.clip_cov_lb", "actor.clip_cov_ub",
            "no covariance is between them", remedy: "make actor.clip_cov_ub the greater")
    }

    func checkEstimator() {
        let algorithm = config.algorithm, name = algorithm.advantageEstimator
        let estimator = "algorithm.adv_estimator"
        for key in ["gdpo_reward_keys", "gdpo_reward_weights"].map({ "algorithm." + $0 }) {
            refuse(
                name != "gdpo" && ledger.isChanged(key), key, estimator, "only gdpo has reward components",
                remedy: "make \(estimator) gdpo, or remove \(key)")
        }
        refuse(
            name != "gpg" && ledger.isChanged("algorithm.f_norm"), "algorithm.f_norm", estimator,
            "only gpg divides by it", remedy: "make \(estimator) gpg, or remove algorithm.f_norm")
        if name == "gdpo" { checkComponents() }
        refuse(
            name == "remax" && config.rollout.temperature == 0, estimator, "rollout.temperature",
            "a greedy response is its own baseline", remedy: "make rollout.temperature more than 0")
        refuse(
            ledger.names.spreadAdvantageEstimators.contains(name)
                && config.actor.megatron.tensorSize * config.actor.megatron.pipelineSize * config.actor.ulyssesSize > 1,
            estimator, sharing, "Σπ² is computed from whole rows of logits on one rank",
            remedy: "make \(sharing) 1")
        warn(
            name != "grpo" && name != "grpo_vectorized" && name != "grpo_passk" && name != "gdpo"
                && !algorithm.normAdvantageByStd, "algorithm.norm_adv_by_std_in_grpo", estimator,
            "it divides by no standard deviation of a group", remedy: "remove algorithm.norm_adv_by_std_in_grpo")
    }

    /// The setting by which ranks share a sequence or the model, where there is one.
    private var sharing: String {
        let megatron = config.actor.megatron
        if megatron.tensorSize > 1 { return "actor.megatron.tensor_model_parallel_size" }
        if megatron.pipelineSize > 1 { return "actor.megatron.pipeline_model_parallel_size" }
        return "actor.ulysses_sequence_parallel_size"
    }

    private func checkComponents() {
        let keys = config.algorithm.gdpoRewardKeys, weights = config.algorithm.gdpoRewardWeights
        let parts = config.reward.weights
        refuse(
            keys.isEmpty && parts.isEmpty, "algorithm.adv_estimator", "algorithm.gdpo_reward_keys",
            "nothing says what the reward's components are",
            remedy: "set algorithm.gdpo_reward_keys to details of the reward, or reward.weights")
        let count = keys.isEmpty ? parts.count : keys.count
        refuse(
            !weights.isEmpty && weights.count != count, "algorithm.gdpo_reward_weights",
            keys.isEmpty ? "reward.weights" : "algorithm.gdpo_reward_keys",
            "\(weights.count) weights for \(count) components", remedy: "give each component a weight, or none")
    }

    func checkCritic() {
        let critic = config.critic, needsOne = config.algorithm.advantageEstimator == "gae"
        refuse(
            needsOne && critic.enable == false, "algorithm.adv_estimator", "critic.enable",
            "its advantages are made with a critic", remedy: "remove critic.enable, or take another estimator, as grpo")
        warn(
            critic.enable == true && !needsOne, "critic.enable", "algorithm.adv_estimator",
            "the critic is trained, and no advantage is made with it", remedy: "remove critic.enable")
        if !config.hasCritic {
            refuse(
                ledger.isChanged("trainer.critic_warmup"), "trainer.critic_warmup", "algorithm.adv_estimator",
                "there is no critic to warm up",
                remedy: "make algorithm.adv_estimator gae, or remove trainer.critic_warmup")
            for declaration in ledger.declarations
            where declaration.path.first == "critic" && declaration.keyPath != "critic.enable"
                && ledger.isChanged(declaration.keyPath)
            {
                warn(
                    true, declaration.keyPath, "algorithm.adv_estimator", "there is no critic",
                    remedy: "make algorithm.adv_estimator gae, or remove it")
            }
            return
        }
        checkCriticBatches()
        checkSharedTrunk()
        refuse(
            config.actor.megatron.pipelineSize > 1, "actor.megatron.pipeline_model_parallel_size",
            "algorithm.adv_estimator", "a critic's layers are not divided into stages",
            remedy: "make actor.megatron.pipeline_model_parallel_size 1, or take an estimator without a critic")
        refuse(
            config.actor.megatron.expertSize > 1, "actor.megatron.expert_model_parallel_size",
            "algorithm.adv_estimator", "a critic's experts are not divided",
            remedy: "make actor.megatron.expert_model_parallel_size 1, or take an estimator without a critic")
    }

    private func checkCriticBatches() {
        let critic = config.critic, batch = config.data.trainBatchSize
        if let mini = critic.ppoMiniBatchSize {
            let smaller = (1...max(1, min(mini, batch))).last { batch % $0 == 0 } ?? 1
            refuse(
                mini > batch || batch % mini != 0, "data.train_batch_size", "critic.ppo_mini_batch_size",
                "a step's prompts do not make whole mini-batches",
                remedy: "make critic.ppo_mini_batch_size a divisor of \(batch), as \(smaller)")
        }
        if let budget = critic.ppoMaxTokenLenPerGPU {
            let longest = config.data.maxPromptLength + config.data.maxResponseLength
            refuse(
                longest > budget, "critic.ppo_max_token_len_per_gpu", "data.max_response_length",
                "a prompt of data.max_prompt_length = \(config.data.maxPromptLength) tokens with such a response would fit no "
                    + "micro-batch",
                remedy: "make critic.ppo_max_token_len_per_gpu at least \(longest)")
        }
    }

    private func checkSharedTrunk() {
        let shared = "critic.shares_trunk"
        guard config.critic.sharesTrunk else {
            refuse(
                ledger.isChanged("critic.vf_coef"), "critic.vf_coef", shared, "the critic has a loss of its own",
                remedy: "make \(shared) true, or remove critic.vf_coef")
            return
        }
        for key in [
            "model.path", "ppo_mini_batch_size", "ppo_epochs", "ppo_max_token_len_per_gpu", "shuffle", "grad_clip",
        ]
        .map({ "critic." + $0 }) {
            refuse(
                ledger.isChanged(key), key, shared, "values are learned in the policy's own passes",
                remedy: "remove \(key), or make \(shared) false")
        }
        refuse(
            config.trainer.criticWarmup > 0, "trainer.critic_warmup", shared,
            "the critic does not learn without the policy",
            remedy: "remove trainer.critic_warmup, or make \(shared) false")
    }

    func checkRolloutCorrection() {
        let correction = config.algorithm.rolloutCorrection, prefix = "algorithm.rollout_correction."
        for key in ["rollout_is_threshold", "rollout_is_batch_normalize"].map({ prefix + $0 }) {
            refuse(
                correction.level == nil && ledger.isChanged(key), key, prefix + "rollout_is", "there are no weights",
                remedy: "make \(prefix)rollout_is token or sequence, or remove \(key)")
        }
        refuse(
            correction.rejection == nil && correction.rejectionThreshold != nil, prefix + "rollout_rs_threshold",
            prefix + "rollout_rs", "nothing is rejected", remedy: "set \(prefix)rollout_rs, or remove the threshold")
        checkThresholds(prefix)
        refuse(
            !config.bypassesOldLogProbs && ledger.isChanged(prefix + "loss_type"), prefix + "loss_type",
            prefix + "bypass_mode", "only bypass mode has a loss of its own",
            remedy: "make \(prefix)bypass_mode true, or remove \(prefix)loss_type")
        refuse(
            config.bypassesOldLogProbs && config.policyLoss != "bypass_mode" && correction.isOn, prefix + "bypass_mode",
            "actor.policy_loss", "the ratio of that loss is to the sampler already, and it corrects no more",
            remedy: "remove \(prefix)rollout_is and rollout_rs, or make actor.policy_loss bypass_mode")
        refuse(
            config.bypassesOldLogProbs
                && ledger.names.spreadAdvantageEstimators.contains(config.algorithm.advantageEstimator),
            prefix + "bypass_mode", "algorithm.adv_estimator", "its baseline needs the pass that bypass mode saves",
            remedy: "make \(prefix)bypass_mode false")
        refuse(
            config.bypassesOldLogProbs && correction.normalizes, prefix + "rollout_is_batch_normalize",
            config.actor.policyLoss == "bypass_mode" ? "actor.policy_loss" : prefix + "bypass_mode",
            "the batch's mean weight would need the pass that bypass mode saves",
            remedy: "remove \(prefix)rollout_is_batch_normalize, or bypass mode")
        warn(
            config.bypassesOldLogProbs && config.algorithm.useKLInReward, prefix + "bypass_mode",
            "algorithm.use_kl_in_reward", "the KL in the reward is measured from the sampler's log-probabilities",
            remedy: "make \(prefix)bypass_mode false for training's own")
    }

    private func checkThresholds(_ prefix: String) {
        let correction = config.algorithm.rolloutCorrection
        if correction.level != nil, !Self.isThreshold(correction.threshold) {
            problem(
                prefix + "rollout_is_threshold", "'\(correction.threshold)' is no threshold",
                remedy: "give a positive number, or two in order, as \"0.5_2.0\"")
        }
        guard let rejection = correction.rejection else { return }
        let rules = Self.items(rejection)
        for rule in rules where !ledger.names.rejectionRules.contains(rule) {
            problem(
                prefix + "rollout_rs", "'\(rule)' is no rule",
                remedy: "give \(alternatives(ledger.names.rejectionRules))")
        }
        guard let text = correction.rejectionThreshold else {
            return refuse(
                true, prefix + "rollout_rs", prefix + "rollout_rs_threshold", "the rules have no bounds",
                remedy: "set \(prefix)rollout_rs_threshold, one bound a rule")
        }
        let bounds = Self.items(text)
        if let bad = bounds.first(where: { !Self.isThreshold($0) }) {
            problem(
                prefix + "rollout_rs_threshold", "'\(bad)' is no threshold",
                remedy: "give a positive number, or two in order, as \"0.5_2.0\"")
        }
        refuse(
            bounds.count != 1 && bounds.count != rules.count, prefix + "rollout_rs_threshold", prefix + "rollout_rs",
            "\(bounds.count) bounds for \(rules.count) rules", remedy: "give one bound for all, or one a rule")
    }

    private static func items(_ text: String) -> [String] {
        text.split(separator: ",", omittingEmptySubsequences: false).map { String($0.filter { $0 != " " }) }
    }

    private static func isThreshold(_ text: String) -> Bool {
        let numbers = text.split(separator: "_", omittingEmptySubsequences: false).map { Double($0) ?? -1 }
        return (1...2).contains(numbers.count) && numbers.allSatisfy { $0 > 0 && $0.isFinite }
            && numbers[0] <= numbers[numbers.count - 1]
    }

    func checkDynamicSampling() {
        let filter = config.algorithm.filterGroups, buffer = config.reward.overlongBuffer
        refuse(
            filter.enable && config.rollout.n < 2, "algorithm.filter_groups.enable", "rollout.n",
            "a prompt's only sample differs from no other", remedy: "make rollout.n 2 or more")
        refuse(
            filter.enable && config.trainer.totalTrainingSteps == nil, "algorithm.filter_groups.enable",
            "trainer.total_training_steps",
            "how many prompts a step takes is not known before, nor how many steps they make",
            remedy: "set trainer.total_training_steps")
        for key in ["metric", "max_num_gen_batches"].map({ "algorithm.filter_groups." + $0 }) {
            refuse(
                !filter.enable && ledger.isChanged(key), key, "algorithm.filter_groups.enable", "no group is left out",
                remedy: "make algorithm.filter_groups.enable true, or remove \(key)")
        }
        refuse(
            buffer.enable && buffer.length > config.data.maxResponseLength, "reward.overlong_buffer.len",
            "data.max_response_length", "the buffer is longer than a response",
            remedy: "make reward.overlong_buffer.len at most \(config.data.maxResponseLength)")
        for key in ["len", "penalty_factor"].map({ "reward.overlong_buffer." + $0 }) {
            refuse(
                !buffer.enable && ledger.isChanged(key), key, "reward.overlong_buffer.enable", "nothing is punished",
                remedy: "make reward.overlong_buffer.enable true, or remove \(key)")
        }
    }
}
