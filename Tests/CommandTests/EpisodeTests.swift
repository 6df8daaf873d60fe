import Foundation
import OrderedCollections
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Training by episodes of several turns in an environment of a Python file.
    @Suite struct EpisodeTests {
        static let recipe = Workspace.recipe.replacing(
            #"reward: {type: regex, pattern: "[A-Z]"}"#,
            with: """
                reward: {on_failure: drop_sample}
                environment: {path: world.py, score: environment, timeout_s: 300}
                """
        ).replacing("max_prompt_length: 64", with: "max_prompt_length: 96")
            .replacing("max_response_length: 6", with: "max_response_length: 120")
            .replacing(
                "rollout: {n: 4}",
                with: """
                    rollout:
                      n: 4
                      stop: [\(stops)]
                      multi_turn: {enable: true, max_assistant_turns: 3, max_turn_length: 12, step_timeout_s: 300}
                    """)

        /// A model that knows nothing ends its replies by chance.
        private static let stops = (0..<26).map { "\"\(Character(UnicodeScalar(UInt8(97 + $0))))\"" }
            .joined(separator: ", ")

        static let world = """
            import os
            open("world.pid", "w").write(str(os.getpid()))
            class Environment:
                def reset(self, task):
                    self.seed = task["seed"] % 10
                    return task["messages"]
                def step(self, reply):
                    letters = sum(c.isupper() for c in reply["text"])
                    if reply["turn"] == 2:
                        return None, 0.25 * letters, True
                    return "and %d?" % self.seed, 0.125 * letters + 0.0625, False, {"letters": letters}

            """

        private func workspace(_ trouble: String = "") throws -> Workspace {
            let workspace = try Workspace(recipe: Self.recipe)
            try workspace.write(
                "world.py",
                Self.world.replacing(
                    "    def step(self, reply):\n",
                    with: """
                            def step(self, reply):
                        \(trouble)

                        """))
            return workspace
        }

        private func sum(_ workspace: Workspace, _ metric: MetricName) throws -> Double {
            try workspace.history().reduce(0) { $0 + ($1[metric] ?? 0) }
        }

        /// Plays, learns, evaluates, and goes on after a kill as if nothing had been; no process of its own stays behind.
        @Test func episodesTrainAndAKilledRunGoesOn() async throws {
            let workspace = try workspace()
            let whole = try await workspace.train()
            #expect(whole.exitCode == 0, "\(whole)")
            let metrics = try workspace.metrics(), history = try workspace.history()
            try #require(metrics.count == Workspace.steps)
            for step in history {
                #expect(try #require(step["episode/turns/mean"]) > 1 && step["episode/turns/max"] == 3)
                let ended = ["done", "turn_limit", "token_limit", "truncated_reply"].map { name in
                    step.values.first { $0.key.text == "episode/ended/" + name }?.value ?? .nan
                }
                #expect(ended.reduce(0, +) == 16 && ended[0] > 0)
                #expect(try #require(step["episode/shown_tokens/mean"]) > 0)
                // Later turns find what came before in the cache; first turns alone share a seventh of it.
                #expect(try #require(step["rollout/prompt_tokens_shared"]) > 0.4)
                // The sampler's numbers at drawn tokens are the trainer's.
                #expect(try #require(step["training/rollout_logprobs_diff_max"]) < 1e-3)
                #expect(try #require(step["actor/grad_norm"]) > 0)
            }
            #expect(Set(history.compactMap { $0["rollout/weight_digest"] }).count == Workspace.steps)
            #expect(history.contains { ($0["val/turns/mean"] ?? 0) >= 1 })
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .finished)
            try expectNoWorld(workspace)

            try workspace.removeRun()
            _ = try await workspace.train { process in
                if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 3 }) {
                    Glibc.kill(process, SIGKILL)
                }
            }
            try await waitForNoWorld(workspace)
            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == metrics)
            let measured = try await workspace.fledge("eval", "--run", "run")
            #expect(measured.exitCode == 0 && measured.output.contains("val/turns/mean"), "\(measured)")
        }

        private func world(_ workspace: Workspace) throws -> pid_t {
            let text = try String(contentsOf: workspace.folder.appending(path: "world.pid"), encoding: .utf8)
            return try #require(pid_t(text))
        }

        private func expectNoWorld(_ workspace: Workspace) throws {
            #expect(!FledgeProcess.isRunning(try world(workspace)))
        }

        /// The kernel ends it with its parent.
        private func waitForNoWorld(_ workspace: Workspace) async throws {
            let process = try world(workspace)
            while FledgeProcess.isRunning(process) { try await Task.sleep(for: .milliseconds(5)) }
        }

        /// Each kind of trouble in the midst of episodes is counted by its name, and training goes on with the others.
        @Test(arguments: [
            ("raise ValueError('boom')", "reward/failed_raised" as MetricName),
            ("import os; os._exit(3)", "reward/failed_worker_died"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "reward/failed_worker_died"),
            ("return 'x', 'much', False", "reward/failed_garbage"),
            ("return 'x', float('nan'), False", "reward/failed_garbage"),
        ])
        func troubleCostsItsEpisodes(_ trouble: String, _ metric: MetricName) async throws {
            let workspace = try workspace(
                """
                        if reply["turn"] == 1 and len(reply["text"]) % 2 == 0:
                            \(trouble)
                """)
            let outcome = try await workspace.train(["trainer.total_training_steps=2", "trainer.test_freq=-1"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let failed = try sum(workspace, "reward/failed")
            #expect(failed > 0 && failed < 32)
            #expect(try sum(workspace, metric) == failed && sum(workspace, "episode/failed") == failed)
            #expect(try sum(workspace, "reward/dropped_samples") == failed)
            #expect(outcome.errors.contains("episodes failed ("), "\(outcome)")
            try expectNoWorld(workspace)
        }

        @Test func anEpisodeThatHangsMeetsItsDeadline() async throws {
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
                "trainer.total_training_steps=1", "trainer.val_before_train=false", "environment.timeout_s=5",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try sum(workspace, "reward/failed_timed_out") == 1)
            #expect(try sum(workspace, "reward/failed") == 1)
            try expectNoWorld(workspace)
        }

        /// The process that all episodes fork from is killed while they play: it is made anew, and the run goes on.
        @Test func theWorldIsMadeAnew() async throws {
            let workspace = try workspace()
            let outcome = try await workspace.train { process in
                guard try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) else { return }
                if let world = try? world(workspace) { Glibc.kill(world, SIGKILL) }
            }
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try workspace.history().count == Workspace.steps)
        }

        @Test func aWorldThatDoesNotLoadEndsTheRunBeforeItBegins() async throws {
            let workspace = try workspace()
            try workspace.write(
                "world.py", "class Environment:\n    def reset(self, task): return\nimport nowhere_at_all\n")
            let outcome = try await workspace.train()
            #expect(outcome.exitCode == 2 && outcome.errors.contains("nowhere_at_all"), "\(outcome)")
            #expect(!FileManager.default.fileExists(atPath: workspace.run.path))
        }

        /// Ranks draw the turns together.
        @Test func ranksPlayToo() async throws {
            let workspace = try workspace()
            let outcome = try await workspace.train([
                "trainer.n_gpus_per_node=2", "trainer.total_training_steps=2", "trainer.test_freq=-1",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 2 && history.allSatisfy { ($0["episode/turns/mean"] ?? 0) > 1 })
            try expectNoWorld(workspace)
        }
    }
}
