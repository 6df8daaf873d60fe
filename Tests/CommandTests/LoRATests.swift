import Checkpoints
import Foundation
import Telemetry
import TensorCore
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Runs that train a low-rank adapter: the recipe has a reference, shuffled mini-batches and evaluations.
    @Suite struct LoRATests {
        static let lora = ["model.lora_rank=4", "model.lora_dropout=0.1"]

        func settings(_ overrides: [String]) -> [String] { Self.lora + overrides }

        @Test func killedRunGoesOnAsIfNothingHadBeen() async throws {
            let workspace = try Workspace()
            let whole = try await workspace.train(Self.lora)
            #expect(whole.exitCode == 0, "\(whole)")
            #expect(whole.errors.contains("LoRA of rank 4 on 14 modules"), "\(whole)")
            let metrics = try workspace.metrics(), history = try workspace.history()
            #expect(Set(history.compactMap { $0["rollout/weight_digest"] }).count == Workspace.steps)
            try workspace.removeRun()
            var wasHit = false
            for _ in 1...20 where !wasHit {
                try workspace.removeRun()
                _ = try await workspace.train(Self.lora) { process in
                    if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 3 }) {
                        Glibc.kill(process, SIGKILL)
                    }
                }
                wasHit = !workspace.checkpoints().contains("step-000006")
            }
            #expect(wasHit)
            let resumed = try await workspace.train(Self.lora)
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == metrics)
        }

        /// What the adapter's folder, the merged model and the run itself answer is one and the same.
        @Test func adapterIsExportedMergedAndTrainedOn() async throws {
            let workspace = try Workspace()
            _ = try await workspace.train(Self.lora)
            let state = try SafetensorsModel(folder: workspace.run.checkpoints + "/step-000006", name: "tensors")
            #expect(state.tensorNames.allSatisfy { $0.contains("lora_") })

            let adapter = try await workspace.fledge("export", "--run", "run", "--to", "adapter")
            #expect(adapter.exitCode == 0 && adapter.output.contains("the adapter"), "\(adapter)")
            let names = try SafetensorsModel(folder: workspace.folder.path + "/adapter", name: "adapter_model")
                .tensorNames
            #expect(names.contains("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"))
            #expect(names.count == 28)
            let merged = try await workspace.fledge("export", "--run", "run", "--merge", "--to", "merged")
            #expect(merged.exitCode == 0, "\(merged)")
            let also = try await workspace.fledge(
                "export", "--model", "model", "--adapter", "adapter", "--merge", "--to", "also")
            #expect(also.exitCode == 0, "\(also)")
            let first = try SafetensorsModel(folder: workspace.folder.path + "/merged")
            let second = try SafetensorsModel(folder: workspace.folder.path + "/also")
            #expect(first.tensorNames == second.tensorNames)
            for name in first.tensorNames {
                #expect(try first.tensor(named: name).equals(second.tensor(named: name)), "\(name)")
            }
            let ofRun = try await workspace.fledge("eval", "recipe.yaml", "--run", "run", "--json")
            let ofMerged = try await workspace.fledge("eval", "recipe.yaml", "model.path=merged", "--json")
            let ofAdapter = try await workspace.fledge(
                "eval", "recipe.yaml", "model.lora_adapter_path=adapter", "--json")
            for outcome in [ofRun, ofMerged, ofAdapter] {
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.output == ofRun.output)
            }
            let said = try await workspace.fledge(
                "generate", "--model", "model", "--adapter", "adapter", "--prompt", "hello", "--max-tokens", "5")
            #expect(said.exitCode == 0, "\(said)")
            let further = try await workspace.train([
                "model.lora_adapter_path=adapter", "model.lora_merge=true", "trainer.default_local_dir=further",
                "trainer.total_training_steps=1",
            ])
            #expect(further.exitCode == 0, "\(further)")

            let none = try await workspace.fledge("export", "--model", "model", "--merge", "--to", "none")
            #expect(none.exitCode == 2 && none.errors.contains("has no adapter"), "\(none)")
        }

        @Test func checkpointsOfAnotherKindAreRefused() async throws {
            let workspace = try Workspace()
            let short = ["trainer.total_training_steps=2"]
            // One optimizer step a batch and no dropout: at the first step the policy is the reference, below the adapter.
            _ = try await workspace.train(settings(short + ["model.lora_dropout=0", "actor.ppo_mini_batch_size=4"]))
            #expect(try workspace.history().map { $0["actor/kl"] == 0 } == [true, false])
            let full = try await workspace.train()
            #expect(full.exitCode == 2, "\(full)")
            for part in ["LoRA of rank 4", "all weights", "trainer.resume_mode=disable"] {
                #expect(full.errors.contains(part), "'\(part)' is not in:\n\(full)")
            }
            let other = try await workspace.train(["model.lora_rank=8"])
            #expect(other.exitCode == 2 && other.errors.contains("LoRA of rank 8"), "\(other)")
            try workspace.removeRun()
            _ = try await workspace.train(short)
            let lora = try await workspace.train(Self.lora)
            #expect(lora.exitCode == 2 && lora.errors.contains("holds a training of all weights"), "\(lora)")
        }

        @Test func targetsAndFoldersThatDoNotFitAreNamed() async throws {
            let workspace = try Workspace()
            for (overrides, part) in [
                (["model.lora_rank=4", "model.target_modules=[query]"], "q_proj"),
                (["model.lora_adapter_path=nowhere"], "nowhere"), (["model.lora_alpha=2"], "model.lora_rank"),
            ] {
                let outcome = try await workspace.train(overrides)
                #expect(outcome.exitCode == 2 && outcome.errors.contains(part), "\(outcome)")
            }
            #expect(workspace.stepsWritten == 0)
        }
    }
}
