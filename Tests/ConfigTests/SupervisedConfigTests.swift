import Foundation
import TestSupport
import Testing

@testable import Config

@Suite struct SupervisedConfigTests {
    static let minimal = """
        model:
          path: model
        data:
          train_files: train.jsonl
          val_files: [val.jsonl]

        """

    static func problems(
        _ kind: SupervisedKind, _ yaml: String = minimal, _ overrides: String...
    ) -> [Diagnostic] {
        do throws(ConfigError) {
            _ = try SupervisedConfig(kind, yaml: yaml, file: "recipe.yaml", overrides: overrides)
            return []
        } catch { return error.diagnostics }
    }

    /// `FLEDGE_WRITE_EXAMPLE=1` writes them anew.
    @Test(arguments: SupervisedKind.allCases) func theExamplesAreUpToDate(_ kind: SupervisedKind) throws {
        let file = Golden.packageRoot.appending(path: kind.exampleFile)
        let text = SupervisedConfig.exampleYAML(kind)
        if ProcessInfo.processInfo.environment["FLEDGE_WRITE_EXAMPLE"] != nil { try Data(text.utf8).write(to: file) }
        let found = try String(contentsOf: file, encoding: .utf8)
        #expect(
            found == text, "run FLEDGE_WRITE_EXAMPLE=1 swift test --filter theExamplesAreUpToDate and commit the files")
    }

    @Test(arguments: [
        (SupervisedKind.sft, "example-sft"), (.dpo, "example-dpo"), (.rewardModel, "example-reward-model"),
        (.sft, "sft"), (.dpo, "dpo"), (.rewardModel, "reward-model"),
    ])
    func recipesAreWhole(_ kind: SupervisedKind, _ name: String) throws {
        let file = Golden.packageRoot.appending(path: "recipes/\(name).yaml")
        let config = try SupervisedConfig(kind, contentsOf: file)
        #expect(config.warnings.isEmpty)
        let resolved = config.resolvedYAML()
        #expect(try SupervisedConfig(kind, yaml: resolved, file: "resolved.yaml") == config)
    }

    @Test(arguments: SupervisedKind.allCases) func everyDefaultParses(_ kind: SupervisedKind) throws {
        let base = try SupervisedConfig(kind, yaml: Self.minimal, file: "recipe.yaml")
        for declaration in SupervisedConfig.described(kind) {
            guard case .setting(_, _, let fallback, _, let isRequired) = declaration.role, !isRequired,
                declaration.keyPath != "data.val_files"
            else { continue }
            #expect(!declaration.doc.isEmpty)
            let again = try SupervisedConfig(
                kind, yaml: Self.minimal, file: "recipe.yaml", overrides: ["\(declaration.keyPath)=\(fallback)"])
            #expect(again == base, "\(declaration.keyPath)")
        }
    }

    @Test func unknownKeysAreRefusedWhereTheyStand() {
        let found = Self.problems(.sft, Self.minimal + "train:\n  max_token_len: 4\n")
        #expect(found.map(\.code) == [.unknownKey])
        #expect(
            found.first?.description
                == "recipe.yaml:7:3: train.max_token_len: unknown key; did you mean train.max_token_len_per_gpu?"
                || found.first?.line == 7)
        // What another kind has is none of this one's.
        #expect(Self.problems(.sft, Self.minimal + "dpo: {beta: 1}\n").map(\.code) == [.unknownKey])
        #expect(Self.problems(.rewardModel, Self.minimal + "eval: {max_new_tokens: 1}\n").map(\.code) == [.unknownKey])
    }

    @Test(arguments: [
        ("learning_rate", "write train.optim.lr"), ("packing", "remove it"), ("max_length", "write data.max_length"),
        ("actor.optim.lr", "write train"), ("gradient_accumulation_steps", "remove it"),
        ("data.micro_batch_size_per_gpu", "remove it"),
    ])
    func namesOfOtherProgramsAreAnswered(_ name: String, _ remedy: String) {
        let found = Self.problems(.sft, Self.minimal, "\(name)=1")
        #expect(found.map(\.code) == [.notSupported] && found.first?.remedy == remedy)
    }

    @Test func answersNameSettingsThatAreThere() {
        let declared = Set(SupervisedKind.allCases.flatMap { SupervisedConfig.described($0).map(\.keyPath) })
        for (name, answer) in SupervisedPeerNames.table {
            #expect(!declared.contains(name), "\(name)")
            guard case .here(let here) = answer else { continue }
            let first = here.split(whereSeparator: { " :,".contains($0) }).first.map(String.init) ?? ""
            #expect(declared.contains(first), "\(name) is answered with \(first)")
        }
        #expect(Set(SupervisedPeerNames.table.map(\.name)).count == SupervisedPeerNames.table.count)
    }

    @Test func aRecipeOfAnotherCommandIsRefused() throws {
        let config = try SupervisedConfig(.dpo, yaml: Self.minimal, file: "recipe.yaml")
        let found = Self.problems(.sft, config.resolvedYAML())
        #expect(found.contains { $0.keyPath == "objective" && $0.remedy?.hasPrefix("run fledge dpo") == true })
        let file = FileManager.default.temporaryDirectory.appending(path: "fledge-kind-\(UUID().uuidString).yaml")
        defer { try? FileManager.default.removeItem(at: file) }
        try Data(config.resolvedYAML().utf8).write(to: file)
        #expect(try SupervisedConfig.kind(ofResolved: file) == .dpo)
        try Data(RunConfig.exampleYAML().utf8).write(to: file)
        #expect(try SupervisedConfig.kind(ofResolved: file) == nil)
    }

    @Test(arguments: [
        (SupervisedKind.sft, ["data.max_length=20000"], "train.max_token_len_per_gpu"),
        (.sft, ["data.prompt_key=messages"], "data.messages_key"),
        (.sft, ["data.val_files=[]", "eval.max_new_tokens=4"], "eval.max_new_tokens"),
        (.sft, ["trainer.test_freq=2", "data.val_files=[]"], "trainer.test_freq"),
        (.sft, ["model.lora_alpha=3"], "model.lora_alpha"),
        (.dpo, ["dpo.loss_weights=[1, 2]"], "dpo.loss_weights"),
        (.dpo, ["dpo.loss_type=hinge", "dpo.label_smoothing=0.1"], "dpo.label_smoothing"),
        (.dpo, ["dpo.loss_type=exo_pair"], "dpo.label_smoothing"),
        (.dpo, ["dpo.loss_type=[ipo, ipo]"], "dpo.loss_type"),
        (.dpo, ["dpo.label_smoothing=0.5"], "dpo.label_smoothing"),
        (.dpo, ["dpo.loss_type=aot"], "dpo.loss_type"),
        (.rewardModel, ["data.chosen_key=prompt"], "data.chosen_key"),
        (.rewardModel, ["reward_model.center_rewards_coefficient=-1"], "reward_model.center_rewards_coefficient"),
    ])
    func settingsAtOddsAreRefused(_ kind: SupervisedKind, _ overrides: [String], _ name: String) {
        do throws(ConfigError) {
            _ = try SupervisedConfig(kind, yaml: Self.minimal, file: "recipe.yaml", overrides: overrides)
            Issue.record("\(overrides) was accepted")
        } catch {
            #expect(error.diagnostics.map(\.keyPath) == [name], "\(error)")
            #expect(error.diagnostics[0].remedy != nil)
        }
    }

    /// What ranks share out is read as `fledge train` reads it; what there is none of here is said.
    @Test(arguments: SupervisedKind.allCases) func ranksShareWhatTheActorsDo(_ kind: SupervisedKind) throws {
        let config = try SupervisedConfig(
            kind, yaml: Self.minimal, file: "recipe.yaml",
            overrides: [
                "trainer.n_gpus_per_node=8", "trainer.max_restarts=2", "train.fsdp_config.fsdp_size=2",
                "train.ulysses_sequence_parallel_size=2", "train.megatron.tensor_model_parallel_size=2",
                "train.megatron.sequence_parallel=false",
            ])
        #expect(config.warnings.isEmpty && config.trainer.gpusPerNode == 8 && config.trainer.maxRestarts == 2)
        let train = config.train
        #expect(train.ulyssesSize == 2 && train.megatron.tensorSize == 2 && train.fsdp.fsdpSize == 2)
        #expect(train.megatron.pipelineSize == 1 && !train.megatron.sequenceParallel)
        for (setting, value, text) in [
            ("trainer.take_turns", "true", "there is but one model"),
            ("trainer.critic_warmup", "2", "there is no critic"),
            ("train.fsdp_config.fsdp_size", "0", "no rank is no set of ranks"),
            ("trainer.nnodes", "2", "this command starts ranks on its own host only"),
            ("ulysses_sequence_parallel_size", "2", "write train.ulysses_sequence_parallel_size"),
        ] {
            let problem = try #require(Self.problems(kind, Self.minimal, "\(setting)=\(value)").first)
            #expect(problem.keyPath == setting && "\(problem)".contains(text), "\(problem)")
        }
        let pipeline = "train.megatron.pipeline_model_parallel_size=2"
        let stages = Self.problems(kind, Self.minimal, pipeline)
        #expect(stages.map(\.keyPath) == (kind == .rewardModel ? ["train.megatron.pipeline_model_parallel_size"] : []))
        #expect(Self.problems(kind, Self.minimal, pipeline, "train.router_aux_loss_coef=0.1").count == 1 + stages.count)
        for size in ["tensor", "expert"] {
            let name = "train.megatron.\(size)_model_parallel_size"
            let problem = try #require(Self.problems(kind, Self.minimal, "\(name)=2", "model.lora_rank=4").first)
            #expect(problem.keyPath == name && "\(problem)".contains("an adapter's matrices are not divided"))
        }
        let kept = try SupervisedConfig(
            kind, yaml: Self.minimal, file: "recipe.yaml", overrides: ["train.fsdp_config.reshard_after_forward=false"])
        #expect(kept.warnings.map(\.keyPath) == ["train.fsdp_config.reshard_after_forward"])
    }
}
