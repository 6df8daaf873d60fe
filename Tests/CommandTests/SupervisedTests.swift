import Checkpoints
import Foundation
import Models
import OrderedCollections
import Subprocess
import Telemetry
import TensorCore
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    @Suite struct SupervisedTests {
        /// A command with the section of its recipe that is its own.
        enum Kind: String, CaseIterable, Sendable {
            case sft, dpo
            case rewardModel = "reward-model"

            var section: String {
                switch self {
                case .sft: "eval: {max_new_tokens: 4}"
                case .dpo: "dpo: {loss_type: [ipo, sft], loss_weights: [0.1, 1], beta: 0.3}\neval: {max_new_tokens: 2}"
                case .rewardModel: "reward_model: {center_rewards_coefficient: 0.01}"
                }
            }
        }

        static let steps = 6

        static func workspace(_ kind: Kind, _ model: TinyModel = TinyModel()) async throws -> Workspace {
            let workspace = try Workspace(
                model,
                recipe: """
                    experiment_name: tiny
                    seed: 7
                    device: cpu
                    model: {path: model}
                    data: {train_files: data/train.jsonl, val_files: data/heldout.jsonl, train_batch_size: 8, max_length: 80}
                    \(kind.section)
                    train: {max_token_len_per_gpu: 300, optim: {lr: 1e-2, lr_scheduler_type: linear}}
                    trainer:
                      total_training_steps: \(steps)
                      save_freq: 2
                      test_freq: 3
                      default_local_dir: run
                      logger: [jsonl]
                      num_threads: 1

                    """)
            let made = try await workspace.fledge(
                "data", "arithmetic", "data", "--forms", "+", "--heldout", "6", "--max-operand", "4", "--template",
                "{problem}")
            guard made.exitCode == 0 else { throw UnexpectedOutcome(outcome: made) }
            return workspace
        }

        static func train(
            _ kind: Kind, _ workspace: Workspace, _ overrides: [String] = [],
            watch: @Sendable (pid_t) async throws -> Void = { _ in }
        ) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                [kind.rawValue, "recipe.yaml"] + overrides, in: workspace.folder, watch: watch)
        }

        /// Trains, is killed three times on the way, and prints what an uninterrupted run prints; each kind with its weights and
        /// with an adapter, whose dropout is drawn anew.
        @Test(arguments: Kind.allCases, [false, true])
        func killedRunGoesOnAsIfNothingHadBeen(_ kind: Kind, usesLoRA: Bool) async throws {
            let overrides = usesLoRA ? ["model.lora_rank=4", "model.lora_dropout=0.1"] : []
            let workspace = try await Self.workspace(kind)
            let whole = try await Self.train(kind, workspace, overrides)
            #expect(whole.exitCode == 0, "\(whole)")
            let metrics = try workspace.metrics()
            let summary = try #require(try workspace.run.readSummary())
            #expect(metrics.count == Self.steps && summary.status == .finished)
            let loss = try #require(summary.heldOut["val/loss"])
            #expect(try #require(loss.after) < #require(loss.before))
            if kind != .rewardModel { #expect(summary.heldOut["val/exact_match"]?.after != nil) }
            if kind != .sft { #expect(summary.heldOut["val/rewards/accuracies"]?.after != nil) }
            // The loss is the same however a batch is cut.
            try workspace.removeRun()
            _ = try await Self.train(
                kind, workspace, overrides + ["train.max_token_len_per_gpu=100000", "trainer.total_training_steps=1"])
            let history = try workspace.history()
            let first = try #require(history.first?["train/loss"])
            if !usesLoRA {
                let text = try #require(metrics.first)
                let line = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
                let cut = try #require(line?["train/loss"] as? Double)
                #expect(abs(first - cut) < 1e-5 * max(1, abs(cut)))
            }

            try workspace.removeRun()
            for step in [1, 3, 5] {
                _ = try await Self.train(kind, workspace, overrides) { process in
                    if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= step }) {
                        Glibc.kill(process, SIGKILL)
                    }
                }
            }
            let resumed = try await Self.train(kind, workspace, overrides)
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == metrics)
            #expect(try workspace.run.readSummary()?.heldOut == summary.heldOut)
            let again = try await Self.train(kind, workspace, overrides)
            #expect(again.exitCode == 0 && again.output.contains("nothing was trained now"), "\(again)")
        }

        @Test(arguments: Kind.allCases) func badRowsEndTheRunBeforeItBegins(_ kind: Kind) async throws {
            let workspace = try await Self.workspace(kind)
            let good = try String(contentsOf: workspace.folder.appending(path: "data/train.jsonl"), encoding: .utf8)
            try workspace.write("data/bad.jsonl", good + #"{"prompt": "a", "chosen": "b", "completion": 3}"# + "\n")
            let line = good.count { $0 == "\n" } + 1
            let outcome = try await Self.train(kind, workspace, ["data.train_files=data/bad.jsonl"])
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("data/bad.jsonl:\(line): column "), "\(outcome)")
            #expect(!FileManager.default.fileExists(atPath: workspace.run.path))
            let wrong = try await Self.train(kind, workspace, ["data.train_file=x"])
            #expect(wrong.exitCode == 2 && wrong.errors.contains("did you mean data.train_files?"), "\(wrong)")
            let none = try await Self.train(kind, workspace, ["data.train_files=data/no*.jsonl"])
            #expect(none.exitCode == 2 && none.errors.contains("matches no file"), "\(none)")
        }

        /// A fine-tuned model is exported as any; its own recipe cannot be measured by, another can.
        @Test func fineTunedModelsAreExported() async throws {
            let workspace = try await Self.workspace(.sft)
            _ = try await Self.train(.sft, workspace, ["model.lora_rank=4"])
            let adapter = try await workspace.fledge("export", "--run", "run", "--to", "adapter")
            #expect(adapter.exitCode == 0 && adapter.output.contains("wrote the adapter to adapter"), "\(adapter)")
            let whole = try await workspace.fledge("export", "--run", "run", "--merge", "--to", "whole")
            #expect(whole.exitCode == 0, "\(whole)")
            #expect(
                try ModelSource.open(workspace.folder.appending(path: "whole").path).architecture == "LlamaForCausalLM")
            let measured = try await workspace.fledge("eval", "--run", "run")
            #expect(measured.exitCode == 2 && measured.errors.contains("name the recipe to measure by"), "\(measured)")
            let shown = try await workspace.fledge("runs", "show", "run")
            #expect(shown.exitCode == 0 && shown.output.contains("val/loss"), "\(shown)")
        }

        /// What is exported is a reward model as `transformers` knows it, and loads here as one.
        @Test(arguments: [false, true]) func rewardModelsAreExported(usesLoRA: Bool) async throws {
            let workspace = try await Self.workspace(.rewardModel)
            let overrides = usesLoRA ? ["model.lora_rank=4"] : []
            _ = try await Self.train(.rewardModel, workspace, overrides)
            if usesLoRA {
                let refused = try await workspace.fledge("export", "--run", "run", "--to", "reward")
                #expect(refused.exitCode == 2 && refused.errors.contains("--merge"), "\(refused)")
            }
            let outcome = try await FledgeProcess.run(
                ["export", "--run", "run", "--to", "reward"] + (usesLoRA ? ["--merge"] : []), in: workspace.folder)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let source = try ModelSource.open(workspace.folder.appending(path: "reward").path)
            #expect(source.architecture == "LlamaForSequenceClassification")
            #expect(try source.config.labelCount() == 1)
            #expect(try source.config.int("pad_token_id") == 257)
            let model = try ModelRegistry.loadScoring(source)
            #expect(model.labels == 1 && model.reading == .lastToken)
            // And goes on training as one.
            let further = try await Self.train(
                .rewardModel, workspace, ["model.path=reward", "trainer.default_local_dir=further"])
            #expect(further.exitCode == 0, "\(further)")
        }

        @Test func aRecipeOfAnotherCommandIsRefused() async throws {
            let workspace = try await Self.workspace(.sft)
            _ = try await Self.train(.sft, workspace, ["trainer.total_training_steps=1"])
            let outcome = try await workspace.fledge("dpo", "run/config.yaml")
            #expect(outcome.exitCode == 2 && outcome.errors.contains("run fledge sft with this recipe"), "\(outcome)")
        }
    }
}
