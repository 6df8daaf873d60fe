import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// What the user can mend ends with exit code 2 and a message that names it, before anything is trained.
    @Suite struct BadInputTests {
        private func expectRefusal(
            _ workspace: Workspace, _ overrides: [String] = [], naming parts: [String],
            sourceLocation: SourceLocation = #_sourceLocation
        ) async throws {
            let outcome = try await workspace.train(overrides)
            #expect(outcome.exitCode == 2, "\(outcome)", sourceLocation: sourceLocation)
            for part in parts {
                #expect(
                    outcome.errors.contains(part), "'\(part)' is not in:\n\(outcome)", sourceLocation: sourceLocation)
            }
            #expect(workspace.stepsWritten == 0, sourceLocation: sourceLocation)
        }

        // MARK: Models

        @Test func missingModel() async throws {
            try await expectRefusal(try Workspace(), ["model.path=no/such/model"], naming: ["no/such/model"])
        }

        @Test(arguments: [0, 4, 100, -1])
        func truncatedWeights(length: Int) async throws {
            let workspace = try Workspace()
            let file = workspace.model.appending(path: "model.safetensors")
            let bytes = try Data(contentsOf: file)
            try bytes.prefix(length < 0 ? bytes.count + length : length).write(to: file)
            try await expectRefusal(workspace, naming: ["model.safetensors"])
        }

        @Test func unknownArchitectureListsTheKnown() async throws {
            let workspace = try Workspace(TinyModel(architecture: "QuokkaForCausalLM"))
            try await expectRefusal(workspace, naming: ["QuokkaForCausalLM", "LlamaForCausalLM"])
        }

        @Test func brokenConfigurationOfTheModel() async throws {
            let workspace = try Workspace()
            try workspace.write("model/config.json", "{\"architectures\": [")
            try await expectRefusal(workspace, naming: ["config.json"])
        }

        @Test func missingTokenizer() async throws {
            let workspace = try Workspace()
            try FileManager.default.removeItem(at: workspace.model.appending(path: "tokenizer.json"))
            try await expectRefusal(workspace, naming: ["tokenizer.json"])
        }

        @Test func modelWithoutChatTemplate() async throws {
            let workspace = try Workspace(TinyModel(chatTemplate: nil))
            try await expectRefusal(workspace, naming: ["chat template", "model.chat_template"])
            // The remedy that the message names.
            try workspace.write("chat.jinja", "{% for message in messages %}{{ message.content }}{% endfor %}")
            let mended = try await workspace.train(["model.chat_template=chat.jinja", "trainer.total_training_steps=1"])
            #expect(mended.exitCode == 0, "\(mended)")
        }

        @Test func brokenChatTemplate() async throws {
            try await expectRefusal(try Workspace(TinyModel(chatTemplate: "{% for x in %}")), naming: ["line 1"])
        }

        // MARK: Data

        private func row(_ text: String) -> String {
            """
            {"data_source": "test", "prompt": [{"role": "user", "content": "\(text)"}], \
            "reward_model": {"style": "rule", "ground_truth": "1"}}

            """
        }

        private func workspaceWithLongPrompts() throws -> Workspace {
            let workspace = try Workspace()
            let long = String(repeating: "long ", count: 30)
            try workspace.write("data.jsonl", row("a") + row(long) + row("b") + row("c") + row("d") + row(long))
            return workspace
        }

        private let fromFile = [
            "data.train_files=data.jsonl", "data.val_files=[]", "trainer.test_freq=-1",
            "trainer.total_training_steps=1",
        ]

        @Test func longPromptIsRefused() async throws {
            try await expectRefusal(
                try workspaceWithLongPrompts(), fromFile,
                naming: ["data.jsonl:2", "64 are allowed", "data.filter_overlong_prompts", "data.truncation"])
        }

        @Test func longPromptsAreLeftOutAndCounted() async throws {
            let workspace = try workspaceWithLongPrompts()
            let outcome = try await workspace.train(fromFile + ["data.filter_overlong_prompts=true"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("2 of 6 prompts are longer than data.max_prompt_length (64)"), "\(outcome)")
            let longest = try #require(workspace.history().first?["prompt_length/max"])
            #expect(longest < 64)
        }

        @Test func longHeldOutPromptsAreLeftOutAndCounted() async throws {
            let workspace = try workspaceWithLongPrompts()
            let outcome = try await workspace.train([
                "data.val_files=data.jsonl", "trainer.total_training_steps=1", "data.filter_overlong_prompts=true",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("2 of 6 held-out prompts are longer"), "\(outcome)")
        }

        @Test(arguments: ["left", "right", "middle"])
        func longPromptsAreCut(side: String) async throws {
            let workspace = try workspaceWithLongPrompts()
            let outcome = try await workspace.train(fromFile + ["data.truncation=\(side)", "data.train_batch_size=6"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try workspace.history().first?["prompt_length/max"] == 64)
        }

        @Test func onlyLongPrompts() async throws {
            let workspace = try Workspace()
            try workspace.write("data.jsonl", row(String(repeating: "long ", count: 30)))
            try await expectRefusal(
                workspace, fromFile + ["data.filter_overlong_prompts=true"], naming: ["data.max_prompt_length"])
        }

        @Test(arguments: ["", "\n\n"])
        func emptyDataset(text: String) async throws {
            let workspace = try Workspace()
            try workspace.write("data.jsonl", text)
            try await expectRefusal(workspace, fromFile, naming: ["data.jsonl"])
        }

        @Test func missingAndBrokenData() async throws {
            let workspace = try Workspace()
            try await expectRefusal(workspace, fromFile, naming: ["data.jsonl"])
            try workspace.write("data.jsonl", row("a") + "{\"prompt\": \n")
            try await expectRefusal(workspace, fromFile, naming: ["data.jsonl:2"])
        }

        // MARK: Configuration

        @Test func missingRecipe() async throws {
            let outcome = try await (try Workspace()).fledge("train", "nowhere.yaml")
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("nowhere.yaml"))
        }

        @Test func brokenYAMLNamesItsPlace() async throws {
            let recipe = Workspace.recipe.replacing("rollout: {n: 4}", with: "rollout: {n: [4}")
            let line = try #require(recipe.split(separator: "\n").firstIndex { $0.hasPrefix("rollout") }) + 1
            try await expectRefusal(try Workspace(recipe: recipe), naming: ["recipe.yaml:\(line):"])
        }

        @Test func unknownKeySuggestsTheLikeliest() async throws {
            let recipe = Workspace.recipe.replacing("save_freq: 2", with: "save_frq: 2")
            let line = try #require(recipe.split(separator: "\n").firstIndex { $0.contains("save_frq") }) + 1
            try await expectRefusal(
                try Workspace(recipe: recipe), naming: ["recipe.yaml:\(line):", "trainer.save_frq", "save_freq"])
        }

        @Test func badOverrideIsNamedAsTyped() async throws {
            try await expectRefusal(
                try Workspace(), ["rollout.n=many", "actor.optim.lrr=1"],
                naming: ["rollout.n=many", "actor.optim.lrr=1"])
        }

        /// Settings that the configuration knows and nothing heeds must not pass in silence.
        @Test func unheededSettingsAreRefused() async throws {
            try await expectRefusal(
                try Workspace(), ["rollout.kv_cache_dtype=bfloat16"], naming: ["rollout.kv_cache_dtype"])
            try await expectRefusal(try Workspace(), ["model.param_dtype=bfloat16"], naming: ["model.param_dtype"])
        }

        @Test func absentDevice() async throws {
            try await expectRefusal(try Workspace(), ["device=cuda:99"], naming: ["cuda"])
            try await expectRefusal(try Workspace(), ["device=banana"], naming: ["device=banana"])
        }
    }
}
