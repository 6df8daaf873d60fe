import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// Sampling on devices of its own: on the CPU, samplers with weights of their own.
    @Suite struct AsyncTests {
        static let modes = ["synchronous", "streaming", "one_step_off", "fully_async"]

        @Test(arguments: modes) func everyModeTrainsAndSamplesFromTheTrainersWeights(_ mode: String) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train([
                "rollout.n_gpus_per_node=2", "async_training.mode=\(mode)", "trainer.val_before_train=false",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == Workspace.steps)
            let bound = mode == "one_step_off" || mode == "fully_async" ? 1.0 : 0
            for metrics in history {
                #expect((metrics["async/staleness/max"] ?? 99) <= bound)
                #expect((metrics["actor/grad_norm"] ?? 0) > 0)
                if mode == "synchronous" {
                    // The very weights: what the sampler recorded is what training computes.
                    #expect((metrics["training/rollout_logprobs_diff_max"] ?? 1) < 1e-4)
                }
            }
            // All but the last step hand their weights over.
            #expect(history.compactMap { $0["perf/weight_sync_bytes"] }.count == Workspace.steps - 1)
        }

        /// Its matrices alone go over, and what the sampler recorded is what training computes with them.
        @Test(arguments: ["synchronous", "one_step_off"]) func anAdapterIsSampledElsewhere(_ mode: String) async throws
        {
            let whole = try Workspace(), workspace = try Workspace()
            let settings = [
                "rollout.n_gpus_per_node=1", "async_training.mode=\(mode)", "trainer.val_before_train=false",
            ]
            for (workspace, adapter) in [(whole, []), (workspace, ["model.lora_rank=2"])] {
                let outcome = try await workspace.train(settings + adapter)
                #expect(outcome.exitCode == 0, "\(outcome)")
            }
            let bytes = try [whole, workspace].map { try $0.history().compactMap { $0["perf/weight_sync_bytes"] } }
            #expect(bytes[1].count == Workspace.steps - 1 && bytes[1][0] < bytes[0][0] / 2)
            for metrics in try workspace.history() {
                #expect((metrics["actor/grad_norm"] ?? 0) > 0)
                if mode == "synchronous" { #expect((metrics["training/rollout_logprobs_diff_max"] ?? 1) < 1e-4) }
            }
        }

        @Test(arguments: ["one_step_off", "fully_async"])
        func killedRunGoesOnFromItsCheckpointWithItsSamples(_ mode: String) async throws {
            let workspace = try Workspace()
            let settings = ["rollout.n_gpus_per_node=1", "async_training.mode=\(mode)"]
            let killed = try await workspace.train(settings) { process in
                if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 3 }) {
                    kill(process, SIGKILL)
                }
            }
            #expect(killed.exitCode != 0)
            let resumed = try await workspace.train(settings)
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.history().map(\.step) == Array(1...Workspace.steps))
            #expect(try workspace.run.readSummary()?.status == .finished)
        }

        @Test func overSampledPromptsAreGivenUpAndCounted() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(["rollout.over_sample_rate=0.5", "trainer.total_training_steps=2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 2)
            for metrics in history {
                // Six prompts were begun; those that were whole at the same step as the fourth stay.
                #expect((metrics["rollout/lost_groups"] ?? 0) <= 2)
            }
        }

        @Test func stragglersAreCutOff() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train([
                "rollout.straggler_share=0", "rollout.straggler_tokens=2", "trainer.total_training_steps=1",
                "data.max_response_length=8",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let metrics = try #require(try workspace.history().first)
            #expect(metrics["response_length/max"] == 3)
            #expect((metrics["rollout/cut_samples"] ?? 0) > 0)
        }

        @Test(arguments: [
            (["async_training.mode=streaming"], "rollout.n_gpus_per_node"),
            (
                [
                    "rollout.n_gpus_per_node=1", "async_training.mode=fully_async",
                    "async_training.trigger_parameter_sync_step=4", "async_training.staleness_threshold=2",
                ], "at least 4"
            ),
        ])
        func settingsAtOddsAreRefused(_ overrides: [String], _ word: String) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(overrides)
            #expect(outcome.exitCode == 2)
            #expect(outcome.errors.contains(word), "\(outcome)")
        }
    }
}
