import Testing

@testable import Config

@Suite struct MultiTurnSettingsTests {
    static let episodes =
        minimal + """
            rollout:
              multi_turn: {enable: true, max_assistant_turns: 4, max_user_turns: 2}
            environment:
              tools: [calculator, python]

            """

    @Test func episodesAreRead() throws {
        let config = try read(
            Self.episodes, "environment.python.waive=[network, file_reads]", "environment.shaping.first_success=0.1",
            "rollout.multi_turn.format=hermes", "rollout.multi_turn.patience_s=0.05")
        #expect(config.rollout.multiTurn.enable && config.rollout.multiTurn.turns == 3)
        #expect(config.rollout.multiTurn.format == .hermes && config.rollout.multiTurn.patienceSeconds == 0.05)
        #expect(config.environment.tools == [.calculator, .python] && config.environment.score == .sum)
        #expect(config.environment.python.waive == [.network, .fileReads])
        #expect(config.environment.shaping.firstSuccess == 0.1)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
    }

    /// In every mode, on devices of their own by number or by pool; so are greedy answers.
    @Test(arguments: ["synchronous", "streaming", "one_step_off", "fully_async"])
    func samplersOfTheirOwnPlayEpisodes(_ mode: String) throws {
        for devices in [
            ["rollout.n_gpus_per_node=2"],
            ["resource_pools.train=2", "resource_pools.sample=1", "roles.rollout=sample"],
        ] {
            let shared = devices + ["async_training.mode=\(mode)"]
            for overrides in [shared, shared + ["algorithm.adv_estimator=remax"]] {
                let names = KnownNames(advantageEstimators: ["grpo", "remax"])
                let found = problems(Self.episodes, overrides, names: names)
                #expect(found.isEmpty, "\(found)")
            }
        }
    }

    /// The slowest of more prompts are given up where each is answered by itself.
    @Test func slowEpisodesAreGivenUpBySamplersOfTheirOwn() throws {
        let more = "rollout.over_sample_rate=0.5", pools = ["resource_pools={a: 1, b: 1}", "roles.rollout=b"]
        #expect(problems(Self.episodes, [more, "rollout.n_gpus_per_node=1"]).isEmpty)
        #expect(problems(Self.episodes, pools + [more, "async_training.mode=streaming"]).isEmpty)
        for settings in [[more], pools + [more], ["rollout.straggler_share=0.5"]] {
            let found = problems(Self.episodes, settings)
            #expect(found.map(\.code) == [.conflict], "\(found)")
            #expect(found.first?.description.contains("rollout.multi_turn.enable = true") == true, "\(found)")
        }
    }

    @Test func anEnvironmentOfOnesOwnMayGiveAllRewards() throws {
        let config = try read(
            Self.episodes, "environment.tools=[]", "environment.path=world.py", "environment.score=environment",
            "reward=null")
        #expect(config.environment.path == "world.py" && config.reward.source == .none)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
    }

    @Test(arguments: [
        (["environment.path=world.py"], ["environment.path = world.py", "environment.tools", "keep one"]),
        (["environment.tools=[calculator]", "environment.python.cpu_s=1"], ["environment.python.cpu_s = 1"]),
        (["environment.tools=[calculator, calculator]"], ["a tool is named twice"]),
        (["environment.name=World"], ["environment.name = World", "environment.path = null"]),
        (
            ["environment.score=environment", "environment.tools=[]", "environment.path=w.py"],
            ["reward.type = exact_match", "environment.score = environment"]
        ),
        (["environment.score=environment", "reward=null"], ["tools alone give no reward"]),
        (["data.truncation=left"], ["data.truncation = left", "rollout.multi_turn.enable = true"]),
        (["rollout.ignore_eos=true"], ["rollout.ignore_eos = true"]),
        (["rollout.multi_turn.max_turn_length=513"], ["data.max_response_length = 512", "at most 512"]),
        (
            ["environment.tools=[]", "environment.path=w.py", "rollout.multi_turn.max_tool_response_length=9"],
            ["rollout.multi_turn.max_tool_response_length = 9", "environment.path = w.py"]
        ),
    ])
    func conflict(_ overrides: [String], _ mentions: [String]) throws {
        let found = problems(Self.episodes, overrides)
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .conflict)
        for mention in mentions { #expect(found[0].description.contains(mention), "\(found[0]) lacks \(mention)") }
    }

    @Test func withoutAWorldThereAreNoEpisodes() throws {
        let found = problems(Self.episodes, ["environment.tools=[]"])
        #expect(found.map(\.code) == [.missing] && found[0].description.contains("environment.path"), "\(found)")
    }

    @Test func settingsOfEpisodesNeedEpisodes() throws {
        let found = problems(minimal, ["environment.tools=[calculator]", "rollout.multi_turn.max_assistant_turns=3"])
        #expect(found.map(\.code) == [.conflict, .conflict], "\(found)")
        #expect(found.allSatisfy { $0.description.contains("rollout.multi_turn.enable = false (default)") })
    }

    @Test(arguments: [
        ("rollout.multi_turn.tool_config_path=t.yaml", "environment.tools"),
        ("rollout.multi_turn.num_repeat_rollouts=4", "rollout.n"),
        ("environment.tools=[browser]", "calculator or python"),
        ("rollout.multi_turn.max_assistant_turns=0", "out of range"),
    ])
    func whatIsNotThereIsSaid(_ argument: String, _ mention: String) throws {
        let found = problems(Self.episodes, [argument])
        #expect(found.contains { $0.description.contains(mention) }, "\(found)")
    }

    // MARK: - Examples

    @Test func examplesMayHoldAToolsTurn() throws {
        let config = try read(
            minimal, "data.few_shot=[{user: \"2 * 3?\", assistant: call}, {tool: \"6\", assistant: \"6\"}]")
        #expect(config.data.fewShot.map(\.isTool) == [false, true])
        #expect(config.data.fewShot.map(\.user) == ["2 * 3?", "6"])
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        let both = problems(minimal, ["data.few_shot=[{tool: a, user: b, assistant: c}]"])
        #expect(both.map(\.code) == [.unknownKey], "\(both)")
    }

    // MARK: - Models that score

    @Test func modelsScore() throws {
        let model = try read(minimal, "reward={type: null, model: {path: m}}")
        #expect(model.reward.source == .model(try #require(model.reward.model)))
        let judge = try read(minimal, "reward={type: null, judge: {url: \"https://h/v1\", api_key_env: KEY}}")
        #expect(judge.reward.source == .judge(try #require(judge.reward.judge)))
        #expect(judge.reward.judge?.prompt == JudgeSettings.defaultPrompt)
        for config in [model, judge] {
            #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        }
    }

    @Test(arguments: [
        ("reward.model.path=m", "reward.type = exact_match"),
        ("reward.judge.model=x", "reward.judge.url = null"),
        ("reward.model.chat_template=x", "reward.model.path = null"),
        ("reward={type: null, judge: {url: ftp://x}}", "https://host"),
        ("reward={type: null, judge: {url: http://x, prompt: hello}}", "{response}"),
        ("reward={type: null, judge: {url: http://x, min_score: 10}}", "no grade is left"),
        ("reward={type: null, judge: {url: http://x, ca_file: a.pem}}", "nobody shows a certificate"),
        ("reward={type: null, judge: {url: http://x, deadline_s: 1}}", "less time than one request"),
    ])
    func badModelsAreRefused(_ argument: String, _ mention: String) throws {
        let found = problems(minimal, [argument])
        try #require(found.count == 1, "\(found)")
        #expect(found[0].description.contains(mention), "\(found[0]) lacks \(mention)")
    }
}
