import Testing

@testable import Config

/// Estimators, the critic, losses' numbers, rollout correction and dynamic sampling: what fits together.
@Suite struct AlgorithmCheckTests {
    static let names = KnownNames(
        advantageEstimators: ["gae", "gdpo", "gpg", "grpo", "optimal_token_baseline", "remax"],
        groupAdvantageEstimators: ["gdpo", "grpo", "optimal_token_baseline"],
        policyLosses: ["vanilla", "gspo", "clip_cov", "kl_cov", "sapo", "dro", "bypass_mode"],
        spreadAdvantageEstimators: ["optimal_token_baseline"])

    @Test(arguments: [
        (
            ["actor.tau_pos=2"],
            ["actor.tau_pos = 2.0 (command line)", "actor.policy_loss = vanilla", "make actor.policy_loss sapo"]
        ),
        (
            ["actor.policy_loss=clip_cov", "actor.clip_cov_lb=6"],
            ["actor.clip_cov_lb = 6.0", "actor.clip_cov_ub = 5.0"]
        ),
        (["algorithm.adv_estimator=gdpo"], ["algorithm.gdpo_reward_keys = []", "or reward.weights"]),
        (
            [
                "algorithm.adv_estimator=gdpo", "algorithm.gdpo_reward_keys=[a, b]",
                "algorithm.gdpo_reward_weights=[1, 2, 3]",
            ], ["3 weights for 2 components"]
        ),
        (["algorithm.gdpo_reward_keys=[a]"], ["algorithm.adv_estimator = grpo", "only gdpo"]),
        (["algorithm.f_norm=2"], ["algorithm.f_norm = 2.0", "only gpg"]),
        (["algorithm.adv_estimator=remax", "rollout.n=1", "rollout.temperature=0"], ["rollout.temperature = 0.0"]),
        (
            ["algorithm.adv_estimator=optimal_token_baseline", "actor.megatron.tensor_model_parallel_size=2"],
            ["actor.megatron.tensor_model_parallel_size = 2", "Σπ²"]
        ),
        (["algorithm.adv_estimator=gae", "critic.enable=false"], ["critic.enable = false", "remove critic.enable"]),
        (["trainer.critic_warmup=3"], ["trainer.critic_warmup = 3", "no critic"]),
        (
            ["algorithm.adv_estimator=gae", "critic.ppo_mini_batch_size=48"],
            ["critic.ppo_mini_batch_size = 48", "as 32"]
        ),
        (
            ["algorithm.adv_estimator=gae", "critic.shares_trunk=true", "critic.model.path=x"],
            ["critic.model.path = x", "critic.shares_trunk = true"]
        ),
        (
            ["algorithm.adv_estimator=gae", "critic.vf_coef=1"],
            ["critic.vf_coef = 1.0", "critic.shares_trunk = false"]
        ),
        (
            ["algorithm.adv_estimator=gae", "actor.megatron.pipeline_model_parallel_size=2"],
            ["actor.megatron.pipeline_model_parallel_size = 2", "stages"]
        ),
        (
            ["algorithm.rollout_correction.rollout_is_threshold=3"],
            ["algorithm.rollout_correction.rollout_is = null", "there are no weights"]
        ),
        (
            ["algorithm.rollout_correction.rollout_rs=token_k1"],
            ["algorithm.rollout_correction.rollout_rs_threshold = null", "one bound a rule"]
        ),
        (
            [
                "algorithm.rollout_correction.rollout_rs=\"token_k1,token_k3\"",
                "algorithm.rollout_correction.rollout_rs_threshold=\"1,2,3\"",
            ], ["3 bounds for 2 rules"]
        ),
        (
            ["algorithm.rollout_correction.loss_type=reinforce"],
            ["algorithm.rollout_correction.bypass_mode = false", "only bypass mode"]
        ),
        (
            [
                "algorithm.rollout_correction.bypass_mode=true", "actor.policy_loss=gspo",
                "algorithm.rollout_correction.rollout_is=token",
            ], ["actor.policy_loss = gspo", "corrects no more"]
        ),
        (
            [
                "actor.policy_loss=bypass_mode", "algorithm.rollout_correction.rollout_is=token",
                "algorithm.rollout_correction.rollout_is_batch_normalize=true",
            ], ["actor.policy_loss = bypass_mode", "the pass that bypass mode saves"]
        ),
        (["algorithm.filter_groups.metric=acc"], ["algorithm.filter_groups.enable = false"]),
        (["algorithm.filter_groups.enable=true"], ["set trainer.total_training_steps"]),
        (["reward.overlong_buffer.len=3"], ["reward.overlong_buffer.enable = false"]),
        (
            ["reward.overlong_buffer.enable=true", "reward.overlong_buffer.len=5000"],
            ["reward.overlong_buffer.len = 5000", "longer than a response"]
        ),
    ])
    func conflict(_ overrides: [String], _ mentions: [String]) throws {
        let found = problems(minimal, overrides, names: Self.names)
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .conflict && found[0].remedy != nil)
        for mention in mentions { #expect(found[0].description.contains(mention), "\(found[0]) lacks \(mention)") }
    }

    @Test(arguments: [
        (
            ["algorithm.rollout_correction.rollout_is=token", "algorithm.rollout_correction.rollout_is_threshold=3_2"],
            "threshold"
        ),
        (
            [
                "algorithm.rollout_correction.rollout_rs=token_k9",
                "algorithm.rollout_correction.rollout_rs_threshold=2",
            ], "token_k9"
        ),
    ])
    func outOfRange(_ overrides: [String], _ mention: String) throws {
        let found = problems(minimal, overrides, names: Self.names)
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .outOfRange && found[0].description.contains(mention), "\(found)")
    }

    @Test(arguments: [
        (["critic.optim.lr=1e-4"], "critic.optim.lr"), (["critic.enable=true"], "critic.enable"),
        (
            ["algorithm.adv_estimator=gae", "algorithm.norm_adv_by_std_in_grpo=false"],
            "algorithm.norm_adv_by_std_in_grpo"
        ),
        (
            ["algorithm.rollout_correction.bypass_mode=true", "algorithm.use_kl_in_reward=true"],
            "algorithm.rollout_correction.bypass_mode"
        ),
    ])
    func warning(_ overrides: [String], _ keyPath: String) throws {
        let config = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: overrides, names: Self.names)
        #expect(config.warnings.map(\.keyPath) == [keyPath])
    }

    @Test func criticIsThereWhereItIsNeeded() throws {
        func config(_ overrides: String...) throws -> RunConfig {
            try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: overrides, names: Self.names)
        }
        #expect(try !config().hasCritic)
        #expect(try config("algorithm.adv_estimator=gae").hasCritic)
        #expect(try config("algorithm.adv_estimator=gae").critic.optim.lr == 1e-5)
        #expect(try config().policyLoss == "vanilla")
        #expect(try config("algorithm.rollout_correction.bypass_mode=true").policyLoss == "bypass_mode")
        #expect(try config("actor.policy_loss=bypass_mode").bypassesOldLogProbs)
        let gspo = try config("algorithm.rollout_correction.bypass_mode=true", "actor.policy_loss=gspo")
        #expect(gspo.policyLoss == "gspo" && gspo.bypassesOldLogProbs)
    }

    /// Numbers and ranges are both thresholds, quoted or not.
    @Test func thresholdsAreTextsOrNumbers() throws {
        let yaml =
            minimal + """
                algorithm:
                  rollout_correction: {rollout_is: token, rollout_is_threshold: 3, rollout_rs: "token_k1", rollout_rs_threshold: 0.5_2.0}

                """
        let correction = try read(yaml).algorithm.rolloutCorrection
        #expect(correction.threshold == "3" && correction.rejectionThreshold == "0.5_2.0")
        let again = try read(read(yaml).resolvedYAML())
        #expect(again.algorithm == (try read(yaml)).algorithm)
    }

    @Test(arguments: [
        ("critic: {forward_max_token_len_per_gpu: 1}\n", "actor.ppo_max_token_len_per_gpu"),
        ("actor: {policy_loss: {loss_mode: gspo}}\n", "actor.policy_loss"),
        ("mask_truncated_completions: true\n", "algorithm.mask_truncated"),
        ("reward_model: {overlong_buffer: {enable: true}}\n", "reward.overlong_buffer"),
    ])
    func otherProgramsNames(_ yaml: String, _ ours: String) {
        let found = messages(minimal + yaml)
        #expect(found.count == 1 && found[0].contains(ours), "\(found)")
    }
}
