import Foundation
import OrderedCollections
import Subprocess
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Episodes of several turns and greedy baselines, of samplers on devices of their own.
    @Suite struct AsyncEpisodeTests {
        private static let pools = ["resource_pools={train: 1, sample: 2}", "roles.rollout=sample"]
        private static let short = ["trainer.total_training_steps=3", "trainer.test_freq=-1"]

        private func workspace(_ trouble: String = "") throws -> Workspace {
            let workspace = try Workspace(recipe: EpisodeTests.recipe)
            try workspace.write(
                "world.py",
                EpisodeTests.world.replacing(
                    "    def step(self, reply):\n", with: "    def step(self, reply):\n\(trouble)"))
            return workspace
        }

        private func expectNoWorld(_ workspace: Workspace) throws {
            let text = try String(contentsOf: workspace.folder.appending(path: "world.pid"), encoding: .utf8)
            #expect(!FledgeProcess.isRunning(try #require(pid_t(text))))
        }

        private func expectEpisodes(_ history: [StepMetrics], staleness: Double) throws {
            for step in history {
                #expect(try #require(step["episode/turns/mean"]) > 1 && step["episode/turns/max"] == 3)
                #expect(try #require(step["episode/shown_tokens/mean"]) > 0)
                #expect(try #require(step["episode/detail/letters"]) >= 0)
                #expect(step["perf/environment_seconds/max"] != nil && step["episode/failed"] == 0)
                #expect((step["async/staleness/max"] ?? 99) <= staleness)
                #expect((step["actor/grad_norm"] ?? 0) > 0)
            }
            // Later turns find what came before at the sampler that has drawn it, but for what new weights made old; first turns alone
            // share a seventh.
            #expect((history.compactMap { $0["rollout/prompt_tokens_shared"] }.max() ?? 0) > 0.35)
        }

        @Test(arguments: ["synchronous", "streaming", "one_step_off", "fully_async"])
        func samplersPlayWhileThePolicyLearns(_ mode: String) async throws {
            let workspace = try workspace()
            let outcome = try await workspace.train(
                Self.short + ["rollout.n_gpus_per_node=2", "async_training.mode=\(mode)"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history(), waits = mode == "synchronous" || mode == "streaming"
            #expect(history.count == 3)
            try expectEpisodes(history, staleness: waits ? 0 : 1)
            for step in history {
                // A step tells of the episodes that it learns from.
                #expect(step["episode/count"] == 16)
                // The very weights: what the samplers recorded at drawn tokens is what training computes.
                if mode == "synchronous" { #expect((step["training/rollout_logprobs_diff_max"] ?? 1) < 1e-3) }
            }
            try expectNoWorld(workspace)
        }

        @Test(arguments: ["one_step_off", "fully_async"])
        func aPoolOfRanksPlaysToo(_ mode: String) async throws {
            let workspace = try workspace()
            let outcome = try await workspace.train(
                Self.pools + ["trainer.total_training_steps=3", "async_training.mode=\(mode)"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 3)
            try expectEpisodes(history, staleness: 1)
            // Evaluation plays there as well.
            #expect(try workspace.run.readSummary()?.heldOutExactMatch?.after != nil)
            try expectNoWorld(workspace)
        }

        /// Turns that a lost sampler was to draw are asked for again; their episodes go on.
        @Test func episodesOutliveALostSampler() async throws {
            let workspace = try workspace()
            let outcome = try await FledgeProcess.run(
                ["train", "recipe.yaml", "async_training.mode=streaming", "trainer.val_before_train=false"] + Self.pools
                    + Self.short, in: workspace.folder, environment: ["FLEDGE_REHEARSE": "kill:2:2:generate"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("samplers are started anew, the others go on"), "\(outcome)")
            let history = try workspace.history()
            #expect(history.map { $0["episode/count"] } == [16, 16, 16])
            try expectEpisodes(history, staleness: 0)
        }

        /// The same episodes, and what is told of them, after a kill.
        @Test func aKilledRunGoesOnWithTheSameEpisodes() async throws {
            let settings = [
                "rollout.n_gpus_per_node=1", "trainer.save_freq=1", "trainer.total_training_steps=4",
                "trainer.val_before_train=false", "trainer.test_freq=-1",
            ]
            let whole = try workspace(), workspace = try workspace()
            let undisturbed = try await whole.train(settings)
            try #require(undisturbed.exitCode == 0, "\(undisturbed)")
            _ = try await workspace.train(settings) { process in
                if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 2 }) {
                    Glibc.kill(process, SIGKILL)
                }
            }
            let resumed = try await workspace.train(settings)
            #expect(resumed.exitCode == 0, "\(resumed)")
            // What samplers have done meanwhile depends on the clock.
            let clocked = ["rollout/generated_tokens", "async/buffered_groups", "async/groups_under_way"]
            func told(_ workspace: Workspace) throws -> [StepMetrics] {
                try workspace.history().map { step in
                    var kept = StepMetrics(step: step.step)
                    for (name, value) in step.values where !clocked.contains(name.text) { kept[name] = value }
                    return kept
                }
            }
            #expect(try workspace.history().map(\.step) == [1, 2, 3, 4])
            try expectSameSteps(try told(workspace), try told(whole))
        }

        @Test(arguments: ["one_step_off", "fully_async"])
        func groupsOfEpisodesOutliveAKill(_ mode: String) async throws {
            let workspace = try workspace()
            let settings = [
                "rollout.n_gpus_per_node=1", "async_training.mode=\(mode)", "trainer.save_freq=1",
                "trainer.total_training_steps=4", "trainer.val_before_train=false", "trainer.test_freq=-1",
            ]
            _ = try await workspace.train(settings) { process in
                if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 2 }) {
                    Glibc.kill(process, SIGKILL)
                }
            }
            let resumed = try await workspace.train(settings)
            #expect(resumed.exitCode == 0, "\(resumed)")
            let history = try workspace.history()
            #expect(history.map(\.step) == [1, 2, 3, 4])
            try expectEpisodes(history, staleness: 1)
        }

        /// The slowest groups are given up in the midst of their episodes, whose processes end.
        @Test func slowEpisodesAreGivenUp() async throws {
            let workspace = try workspace(
                """
                        import os, time
                        if reply["turn"] == 1:
                            try:
                                os.close(os.open("hung", os.O_CREAT | os.O_EXCL))
                            except FileExistsError:
                                pass
                            else:
                                time.sleep(1000)

                """)
            let outcome = try await workspace.train([
                "rollout.n_gpus_per_node=1", "rollout.over_sample_rate=0.25", "trainer.total_training_steps=2",
                "trainer.val_before_train=false", "trainer.test_freq=-1", "environment.timeout_s=2000",
                "rollout.multi_turn.step_timeout_s=2000", "rollout.multi_turn.episode_timeout_s=4000",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 2 && (history.last?["async/cut_groups"] ?? 0) > 0)
            try expectNoWorld(workspace)
        }

        /// Failures are told of, as where the devices are shared.
        @Test func failuresAreCounted() async throws {
            let workspace = try workspace(
                """
                        if reply["turn"] == 1 and len(reply["text"]) % 2 == 0:
                            raise ValueError("boom")

                """)
            let outcome = try await workspace.train(
                Self.short + ["rollout.n_gpus_per_node=1", "async_training.mode=streaming"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            func sum(_ name: MetricName) throws -> Double {
                try workspace.history().reduce(0) { $0 + ($1[name] ?? 0) }
            }
            let failed = try sum("episode/failed")
            #expect(failed > 0 && failed < 48)
            #expect(try [sum("reward/failed_raised"), sum("episode/ended/failed_raised")] == [failed, failed])
            #expect(outcome.errors.contains("episodes failed (raised), one so: "), "\(outcome)")
        }

        struct Baseline: Sendable, CustomTestStringConvertible {
            var mode: String
            var devices: [String]
            var testDescription: String { mode + ", " + devices[0] }
        }

        static let baselines = [
            Baseline(mode: "synchronous", devices: ["rollout.n_gpus_per_node=1"]),
            Baseline(mode: "streaming", devices: ["rollout.n_gpus_per_node=2"]),
            Baseline(mode: "one_step_off", devices: pools), Baseline(mode: "fully_async", devices: pools),
            Baseline(mode: "synchronous", devices: pools),
        ]

        @Test(arguments: baselines) func greedyAnswersAreBaselines(_ baseline: Baseline) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(
                Self.short + baseline.devices + [
                    "async_training.mode=\(baseline.mode)", "algorithm.adv_estimator=remax",
                ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 3)
            for step in history {
                // The share of answers with a capital letter.
                #expect((0...1).contains(try #require(step["reward/baseline/mean"])))
                #expect(try #require(step["reward/baseline_tokens"]) > 0 && step["reward/dropped_baselines"] == 0)
            }
        }

        @Test func greedyEpisodesAreBaselines() async throws {
            let workspace = try workspace()
            let outcome = try await workspace.train(
                Self.short + [
                    "rollout.n_gpus_per_node=1", "async_training.mode=streaming", "algorithm.adv_estimator=remax",
                ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            // Baselines are no samples.
            #expect(history.map { $0["episode/count"] } == [16, 16, 16])
            #expect(history.allSatisfy { $0["reward/baseline/mean"] != nil && $0["reward/dropped_baselines"] == 0 })
        }
    }
}
