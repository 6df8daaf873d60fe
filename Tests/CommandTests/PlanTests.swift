import Foundation
import Telemetry
import Testing

extension CommandSuites {
    @Suite struct PlanTests {
        private func run(_ arguments: [String]) async throws -> FledgeProcess.Outcome {
            let folder = FileManager.default.temporaryDirectory.appending(path: "fledge-plan-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            let recipe = """
                model: {path: nowhere, dtype: bfloat16}
                data: {train_files: "builtin:arithmetic"}
                reward: {type: exact_match}
                """
            try Data(recipe.utf8).write(to: folder.appending(path: "r.yaml"))
            return try await FledgeProcess.run(["plan", "r.yaml"] + arguments, in: folder)
        }

        @Test func printsEveryPhaseAndAChoice() async throws {
            let outcome = try await run(["--shape", "qwen2.5-0.5b", "--device", "h200", "--devices", "2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            for text in ["generate", "update", "optimizer step", "weight sync", "fastest that fits", "not taken"] {
                #expect(outcome.output.contains(text), "\(outcome)")
            }
        }

        /// As the recipe says: replicas, or all shared out; what is chosen is named with its settings.
        @Test func plansTheRecipesLayout() async throws {
            let shape = ["--shape", "qwen2-7b", "--device", "h100"]
            let replicas = try await run(shape + ["--devices", "4"])
            #expect(replicas.exitCode == 2 && replicas.output.contains("(dp=4)"), "\(replicas)")
            #expect(replicas.output.contains("settings: trainer.n_gpus_per_node=4 "))
            let shared = try await run(
                shape + ["trainer.n_gpus_per_node=4", "actor.fsdp_config.fsdp_size=-1", "--json"])
            #expect(shared.exitCode == 0, "\(shared)")
            let json = try JSONValue(parsing: Array(shared.output.utf8), path: nil)
            #expect(json["configured"]?["layout"]?["fsdp"]?.int == 4)
            #expect(json["reason"]?.string?.contains("on every device would be") == true)
            #expect(json["chosen"]?["settings"]?.elements.isEmpty == false)
        }

        /// Who lies in host memory between turns, and whether the sampler sleeps, in text and JSON.
        @Test func saysWhoTakesTurns() async throws {
            let ppo = ["algorithm.adv_estimator=gae", "actor.use_kl_loss=true", "model.activation_checkpointing=full"]
            let roomy = try await run(["--shape", "qwen2.5-0.5b", "--device", "h200"] + ppo)
            #expect(!roomy.output.contains("but for their turn"), "\(roomy)")
            #expect(roomy.output.contains("the sampler stays awake between rollouts, with a cache of "), "\(roomy)")
            let all = "there but for their turn: the reference model, the critic, the actor's optimizer states"
            let asked = try await run(["--shape", "qwen2.5-0.5b", "--device", "h200", "trainer.take_turns=true"] + ppo)
            #expect(asked.output.contains(all) && asked.output.contains(", turns 0."), "\(asked)")
            let tight = try await run(
                ["--shape", "qwen2.5-0.5b", "--device", "h200", "--memory", "15GiB", "--json"] + ppo
                    + ["actor.ppo_max_token_len_per_gpu=2048"])
            let json = try JSONValue(parsing: Array(tight.output.utf8), path: nil)
            let memory = json["configured"]?["memory"]
            #expect(memory?["rests_critic"]?.bool == true && memory?["rests_actor_states"]?.bool == true, "\(tight)")
            #expect(memory?["keeps_cache"]?.bool == false)
            #expect((memory?["resting_traffic_bytes"]?.int ?? 0) > (memory?["resting_bytes"]?.int ?? 0))
        }

        @Test func printsJSON() async throws {
            let outcome = try await run(["--shape", "tiny", "--device", "h100", "--memory", "80GB", "--json"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(json["verdict"]?.string == "fits" && json["device"]?["memory_bytes"]?.double == 80e9)
            #expect((json["configured"]?["memory"]?["peak_bytes"]?.double ?? 0) > 0)
        }

        @Test(arguments: [
            (["--shape", "qwen2-7b", "--device", "4090"], 2), (["--device", "h200"], 2),
            (["--shape", "qwen2-7b", "--device", "h200", "--layout", "tp=2"], 2), (["--shape", "gpt-5"], 64),
            (["--device", "abacus"], 64), (["--memory", "much"], 64), (["--devices", "0"], 64),
            (["--layout", "up=2"], 64),
        ])
        func refusesWhatCannotBe(_ arguments: [String], _ code: Int) async throws {
            let outcome = try await run(arguments)
            #expect(outcome.exitCode == code, "\(outcome)")
        }
    }
}
