import Testing

@testable import Config

/// Settings that are right alone and wrong together.
@Suite struct CrossCheckTests {
    @Test(arguments: [
        (
            ["actor.ppo_mini_batch_size=128"],
            ["data.train_batch_size = 64 (default)", "actor.ppo_mini_batch_size = 128 (command line)", "at most 64"]
        ),
        (["actor.ppo_mini_batch_size=48"], ["data.train_batch_size = 64", "actor.ppo_mini_batch_size = 48", "as 32"]),
        (["rollout.n=1"], ["rollout.n = 1 (command line)", "algorithm.adv_estimator = grpo (default)"]),
        (
            ["data.max_response_length=16000"],
            ["actor.ppo_max_token_len_per_gpu = 16384", "data.max_response_length = 16000", "at least 16512"]
        ),
        (["data.arithmetic.min_operand=10"], ["data.arithmetic.min_operand = 10", "data.arithmetic.max_operand = 9"]),
        (
            ["data.arithmetic.min_answer=3", "data.arithmetic.max_answer=2"],
            ["data.arithmetic.min_answer = 3", "data.arithmetic.max_answer = 2"]
        ),
        (["actor.clip_ratio_c=1.1"], ["actor.clip_ratio_c = 1.1", "actor.clip_ratio = 0.2", "more than 1.2"]),
        (
            ["actor.clip_ratio_low=0.3", "actor.clip_ratio_high=0.2"],
            ["actor.clip_ratio_low = 0.3", "actor.clip_ratio_high = 0.2"]
        ),
        (["actor.loss_scale_factor=100"], ["actor.loss_scale_factor = 100.0", "actor.loss_agg_mode = token-mean"]),
        (
            ["actor.optim.lr_warmup_steps=3", "actor.optim.lr_warmup_steps_ratio=0.1"],
            ["actor.optim.lr_warmup_steps = 3", "actor.optim.lr_warmup_steps_ratio = 0.1"]
        ),
        (["rollout.temperature=0"], ["rollout.temperature = 0.0", "rollout.n = 8"]),
        (["rollout.val_kwargs.n=2"], ["rollout.val_kwargs.n = 2", "rollout.val_kwargs.do_sample = false"]),
        (
            ["rollout.val_kwargs.do_sample=true", "rollout.val_kwargs.temperature=0"],
            ["rollout.val_kwargs.temperature = 0.0", "rollout.val_kwargs.do_sample = true"]
        ),
        (
            ["reward.custom_reward_function.path=r.py"],
            [
                "reward.type = exact_match (recipe.yaml:7)", "reward.custom_reward_function.path = r.py (command line)",
                "keep one",
            ]
        ),
        (["reward.weights={exact_match: 1}"], ["reward.type = exact_match", "reward.weights = {exact_match: 1.0}"]),
        (
            ["reward.custom_reward_function.name=f"],
            ["reward.custom_reward_function.name = f", "reward.custom_reward_function.path = null"]
        ),
        (["reward.pattern=x"], ["reward.pattern = x", "reward.type = exact_match"]),
        (["reward.type=regex"], ["reward.pattern = null", "reward.type = regex"]),
        (["reward.on_failure=score"], ["reward.on_failure = score", "reward.failure_score = null"]),
        (["reward.failure_score=0"], ["reward.failure_score = 0.0", "reward.on_failure = drop_group"]),
        (["trainer.test_freq=5", "data.val_files=[]"], ["trainer.test_freq = 5", "data.val_files = []"]),
        (
            ["trainer.resume_mode=resume_path"],
            ["trainer.resume_mode = resume_path", "trainer.resume_from_path = null"]
        ),
        (["trainer.resume_from_path=x"], ["trainer.resume_from_path = x", "trainer.resume_mode = auto"]),
        (["model.lora_alpha=32"], ["model.lora_alpha = 32", "model.lora_rank = 0 (default)", "as 16"]),
        (["model.target_modules=[q_proj]"], ["model.target_modules = [q_proj]", "model.lora_rank = 0"]),
        (["model.lora_merge=true"], ["model.lora_merge = true", "model.lora_rank = 0"]),
        (
            ["model.lora_adapter_path=a", "model.lora_rank=8"],
            ["model.lora_rank = 8", "model.lora_adapter_path = a", "remove model.lora_rank"]
        ),
    ])
    func conflict(_ overrides: [String], _ mentions: [String]) throws {
        let found = problems(minimal, overrides)
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .conflict)
        #expect(found[0].remedy != nil)
        for mention in mentions { #expect(found[0].description.contains(mention), "\(found[0]) lacks \(mention)") }
    }

    @Test func bothPlacesInAFile() {
        let yaml = minimal + "actor:\n  ppo_mini_batch_size: 5\nrollout:\n  n: 1\n"
        #expect(
            messages(yaml) == [
                "recipe.yaml:9:24: data.train_batch_size = 64 (default) and actor.ppo_mini_batch_size = 5 (recipe.yaml:9): a "
                    + "step's prompts do not make whole mini-batches; make actor.ppo_mini_batch_size a divisor of 64, as 4",
                "recipe.yaml:11:6: rollout.n = 1 (recipe.yaml:11) and algorithm.adv_estimator = grpo (default): it compares "
                    + "the samples of a prompt, and one has none to compare with; make rollout.n 2 or more",
            ])
    }

    @Test(arguments: [
        ("rollout.top_k=0", "rollout.top_k"), ("rollout.val_kwargs.top_k=0", "rollout.val_kwargs.top_k"),
        ("data.arithmetic.template=what", "data.arithmetic.template"),
        ("data.arithmetic.forms=[]", "data.arithmetic.forms"),
        ("actor.clip_ratio=1.5", "actor.clip_ratio"),
    ])
    func outOfRange(_ argument: String, _ keyPath: String) throws {
        let found = problems(minimal, [argument])
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .outOfRange)
        #expect(found[0].keyPath == keyPath)
        #expect(found[0].argument == argument)
    }

    /// A value that was refused is not the one that was meant: no check builds on it.
    @Test func nothingFollowsFromARefusedValue() {
        #expect(
            problems(minimal, ["actor.ppo_mini_batch_size=many", "data.train_batch_size=7"]).map(\.code) == [.wrongType]
        )
        #expect(problems(minimal, ["reward.type=exct"]).map(\.code) == [.outOfRange])
    }

    @Test(arguments: [
        (["actor.use_kl_loss=true", "algorithm.use_kl_in_reward=true"], "actor.use_kl_loss"),
        (["actor.use_kl_loss=true", "actor.kl_loss_coef=0"], "actor.use_kl_loss"),
        (["actor.optim.lr_warmup_steps=10", "trainer.total_training_steps=10"], "actor.optim.lr_warmup_steps"),
        (["rollout.val_kwargs.top_p=0.5"], "rollout.val_kwargs.top_p"),
    ])
    func warning(_ overrides: [String], _ keyPath: String) throws {
        let config = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: overrides)
        #expect(config.warnings.map(\.keyPath) == [keyPath])
        #expect(config.warnings.map(\.code) == [.warning])
    }

    @Test func greedyTrainingIgnoresFilters() throws {
        let names = KnownNames(advantageEstimators: ["reinforce"], groupAdvantageEstimators: [])
        let config = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: ["algorithm.adv_estimator=reinforce", "rollout.n=1", "rollout.temperature=0", "rollout.top_k=5"]
                + ["rollout.top_p=0.5"], names: names
        )
        #expect(config.warnings.map(\.keyPath) == ["rollout.temperature", "rollout.temperature"])
    }

    @Test func registriesDecideOnNames() throws {
        let names = KnownNames(
            advantageEstimators: ["grpo", "gae"], policyLosses: ["vanilla", "gspo"], rewards: ["mine"])
        let overrides = ["algorithm.adv_estimator=gae", "actor.policy_loss=gspo", "reward.type=mine", "rollout.n=1"]
        let config = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: overrides, names: names)
        #expect(config.algorithm.advantageEstimator == "gae")
        #expect(config.actor.policyLoss == "gspo")
        #expect(config.reward.source == .named("mine"))
        #expect(problems(minimal, overrides).map(\.code) == [.notSupported, .notSupported, .outOfRange])
        #expect(
            problems(minimal, ["reward.type=null", "reward.weights={exact: 1}"]).map(\.keyPath) == ["reward.weights"])
    }
}
