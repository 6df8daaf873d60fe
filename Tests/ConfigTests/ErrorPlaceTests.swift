import Testing

@testable import Config

/// Each kind of error, with its place, message and remedy.
@Suite struct ErrorPlaceTests {
    @Test func aWholeConfigurationHasNone() throws {
        let config = try read()
        #expect(config.model.path == "model")
        #expect(config.data.trainFiles == ["train.jsonl"])
        #expect(config.rollout.n == 8)
        #expect(config.actor.optim.lr == 1e-6)
        #expect(config.warnings.isEmpty)
        #expect(config.runFolder == "runs/run")
        #expect(!config.needsReferenceModel)
    }

    @Test(arguments: [
        (
            "rollout:\n  tempertaure: 0.7\n",
            "recipe.yaml:9:3: rollout.tempertaure: unknown key; did you mean rollout.temperature?"
        ),
        (
            "rollout:\n  n: many\n",
            "recipe.yaml:9:6: rollout.n: expected an integer, got the text \"many\"; give an integer from 1 to 65536"
        ),
        (
            "rollout:\n  n: 0\n",
            "recipe.yaml:9:6: rollout.n: the integer 0 is out of range; give an integer from 1 to 65536"
        ),
        (
            "rollout:\n  n: 99999999999999999999\n",
            "recipe.yaml:9:6: rollout.n: the integer 99999999999999999999 is out of range; give an integer from 1 to 65536"
        ),
        (
            "rollout:\n  n: 8.0\n",
            "recipe.yaml:9:6: rollout.n: expected an integer, got the number 8.0; give an integer from 1 to 65536"
        ),
        (
            "rollout:\n  n:\n",
            "recipe.yaml:9:5: rollout.n: expected an integer, got nothing; give an integer from 1 to 65536"
        ),
        (
            "rollout:\n  n: 4\n  n: 8\n",
            "recipe.yaml:10:3: rollout.n: key given twice: also on line 9; keep one of the two"
        ),
        (
            "rollout: {n: 8, \"n\": 8}\n",
            "recipe.yaml:8:17: rollout.n: key given twice: also on line 8; keep one of the two"
        ),
        (
            "rollout: 3\n",
            "recipe.yaml:8:10: rollout: expected a section of settings, got the integer 3; write its settings below it, "
                + "indented"
        ),
        (
            "rollout:\n  top_p: 0\n",
            "recipe.yaml:9:10: rollout.top_p: the integer 0 is out of range; give a number of more than 0 and at most 1"
        ),
        (
            "rollout:\n  temperature: .inf\n",
            "recipe.yaml:9:16: rollout.temperature: the number .inf is out of range; give a number of at least 0"
        ),
        (
            "rollout:\n  ignore_eos: yes\n",
            "recipe.yaml:9:15: rollout.ignore_eos: expected true or false, got the text \"yes\"; write true or false"
        ),
        (
            "rollout:\n  stop: [\"a\", 3]\n",
            "recipe.yaml:9:15: rollout.stop: expected text, got the integer 3; quote it if it is text"
        ),
        (
            "actor: {optim: {betas: [0.9]}}\n",
            "recipe.yaml:8:24: actor.optim.betas: expected a list of 2 numbers, got a list; give a list of 2, each a "
                + "number of at least 0 and less than 1"
        ),
        (
            "actor:\n  loss_agg_mode: token_mean\n",
            "recipe.yaml:9:18: actor.loss_agg_mode: the text \"token_mean\" is not a choice; give token-mean, "
                + "seq-mean-token-sum, seq-mean-token-mean or seq-mean-token-sum-norm"
        ),
        (
            "device: cuda:x\n",
            "recipe.yaml:8:9: device: the text \"cuda:x\" is not a choice; give auto, cpu, cuda or cuda:N"
        ),
        (
            "experiment_name: ../x\n",
            "recipe.yaml:8:18: experiment_name: the text \"../x\" is out of range; give letters, digits, '.', '_' and '-', "
                + "a letter or digit first"
        ),
        (
            "actor: {kl_loss_type: full}\n",
            "recipe.yaml:8:23: actor.kl_loss_type: full: needs both distributions whole, which is not supported; give kl "
                + "(k1), abs, mse (k2) or low_var_kl (k3), each with or without a + at the end"
        ),
        (
            "algorithm: {adv_estimator: gae}\n",
            "recipe.yaml:8:28: algorithm.adv_estimator: gae: not supported yet; give grpo"
        ),
        (
            "seed: !!python/object 3\n",
            "recipe.yaml:8:7: seed: the tag tag:yaml.org,2002:python/object is not supported; write the plain value"
        ),
        ("<<: {seed: 3}\n", "recipe.yaml:8:1: merge keys (<<) are not supported; write the settings out"),
        ("? [a, b]\n: 3\n", "recipe.yaml:8:3: a key that is a list or a mapping; keys are names"),
        (
            "critic: {strategy: fsdp}\n",
            "recipe.yaml:8:10: critic.strategy: not needed: there is one training engine; remove it"
        ),
        ("learning_rate: 1e-6\n", "recipe.yaml:8:1: learning_rate: has another name here; write actor.optim.lr"),
    ])
    func oneProblem(_ yaml: String, _ expected: String) {
        #expect(messages(minimal + yaml) == [expected])
    }

    @Test(arguments: [
        ("rollout:\n\tn: 3\n", 2, 1), ("a: [b\nc: d\n", 2, 2), ("a: *x\n", 1, 4), ("a: \"b\n", 2, 1),
        ("a: 1\n---\nb: 2\n", 2, 1),
        ("a: b: c\n", 1, 5), ("a: 1\r\nb: \u{7}\r\n", 2, 4),
    ])
    func syntax(_ yaml: String, _ line: Int, _ column: Int) throws {
        // A text that cannot be read misses no settings: that is the only problem.
        let found = problems(yaml)
        try #require(found.count == 1)
        #expect(found[0].code == .syntax)
        #expect(found[0].line == line)
        #expect(found[0].column == column)
        #expect(found[0].message.hasPrefix("not valid YAML: "))
    }

    @Test func whatIsMissing() {
        #expect(
            messages("model: {dtype: bfloat16}\nreward:\n") == [
                "recipe.yaml:1:1: data.train_files: required and not set; set it to text or a list of texts, as in "
                    + "[builtin:arithmetic]",
                "recipe.yaml:1:8: model.path: required and not set; set it to text, as in models/SmolLM2-135M-Instruct",
                "recipe.yaml:2:8: reward: no reward is set; set reward.type to exact_match, number_match, bare_number, "
                    + "regex or format, or reward.weights, or reward.custom_reward_function.path",
            ])
    }

    @Test func allProblemsTogether() {
        let yaml =
            minimal + """
                rollout:
                  n: 4
                  temperature: hot
                  n: 0
                  top_q: 1
                actor:
                  ppo_mini_batch_size: 7
                  optim:
                    lr: -1
                    lr: 2
                """
        let found = problems(yaml, ["trainer.saev_freq=1", "data.shuffle=3", "no", "seed=[1"])
        #expect(
            found.map(\.code) == [
                .wrongType, .duplicateKey, .outOfRange, .unknownKey, .conflict, .duplicateKey, .badOverride, .syntax,
                .unknownKey, .wrongType,
            ])
        #expect(found.map(\.line) == [10, 11, 11, 12, 14, 17, nil, nil, nil, nil])
        let text = ConfigError(found).description
        #expect(text.hasPrefix("10 problems in the configuration:\n  recipe.yaml:10:16: rollout.temperature: "))
        #expect(text.split(separator: "\n").count == 11)
    }

    @Test func anItemOfAList() {
        let yaml =
            "data: {train_files: a, few_shot: [{user: a, asistant: b}, 3]}\nmodel: {path: m}\nreward: {type: regex, pattern: x}"
        #expect(
            messages(yaml) == [
                "recipe.yaml:1:35: data.few_shot[0].assistant: required and not set; set it to text, as in \"4\"",
                "recipe.yaml:1:45: data.few_shot[0].asistant: unknown key; did you mean data.few_shot[0].assistant?",
                "recipe.yaml:1:59: data.few_shot[1]: expected a section of settings, got the integer 3; write its settings "
                    + "below it, indented",
                "recipe.yaml:1:59: data.few_shot[1].user: required and not set; set it to text, as in \"2 + 2\"",
                "recipe.yaml:1:59: data.few_shot[1].assistant: required and not set; set it to text, as in \"4\"",
            ])
    }

    @Test func placesCountUnicodeScalarsAndSkipTheByteOrderMark() throws {
        let found = problems("\u{FEFF}" + minimal + "rollout: {stop: [\"é👍🏽\"], n: 0}")
        try #require(found.count == 1)
        #expect(found[0].line == 8)
        #expect(found[0].column == 29)
    }

    @Test func moreThanCanBeListed() {
        let lines = (0..<500).map { "nothing_like_it_\($0): 1\n" }.joined()
        do throws(ConfigError) {
            _ = try RunConfig(yaml: minimal + lines, file: "recipe.yaml")
            Issue.record("no error")
        } catch {
            #expect(error.diagnostics.count == 100)
            #expect(error.omitted == 400)
            #expect(error.description.hasPrefix("500 problems"))
            #expect(error.description.hasSuffix("… and 400 more"))
        }
    }
}
