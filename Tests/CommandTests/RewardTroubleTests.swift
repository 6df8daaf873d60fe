import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// Python rewards that misbehave: counted, and never a silent 0.
    @Suite struct RewardTroubleTests {
        private static let recipe = Workspace.recipe.replacing(
            #"reward: {type: regex, pattern: "[A-Z]"}"#,
            with:
                "reward: {custom_reward_function: {path: reward.py}, num_workers: 1, timeout_s: 60, on_failure: drop_sample}"
        ).replacing(
            "val_files: builtin:arithmetic\n", with: "\n"
        ).replacing("test_freq: 3", with: "test_freq: -1")

        private func workspace(_ body: String) throws -> Workspace {
            let workspace = try Workspace(recipe: Self.recipe)
            try workspace.write(
                "reward.py", "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n" + body)
            return workspace
        }

        private func sum(_ workspace: Workspace, _ metric: MetricName) throws -> Double {
            try workspace.history().reduce(0) { $0 + ($1[metric] ?? 0) }
        }

        /// Raises, or returns no number, for about half of the answers.
        @Test(
            arguments: [
                ("raise ValueError('boom')", "reward/failed_raised" as MetricName),
                ("return 'much better'", "reward/failed_garbage"), ("return None", "reward/failed_garbage"),
                ("return float('nan')", "reward/failed_non_finite"),
                ("import os; os._exit(3)", "reward/failed_worker_died"),
            ])
        func failuresAreCountedAndTrainingGoesOn(trouble: String, metric: MetricName) async throws {
            // By its last byte, so that every run fails on the same answers.
            let workspace = try workspace(
                """
                    if solution_str and ord(solution_str[-1]) % 4 == 0:
                        \(trouble)
                    return len(solution_str)
                """)
            let outcome = try await workspace.train(["trainer.total_training_steps=2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let failed = try sum(workspace, "reward/failed")
            #expect(failed > 0 && failed < 32)
            #expect(try sum(workspace, metric) == failed)
            #expect(try sum(workspace, "reward/dropped_samples") == failed)
            #expect(try workspace.history().allSatisfy { $0["critic/score/min"] ?? 0 > 0 })
        }

        @Test func hangingRewardMeetsItsDeadline() async throws {
            let workspace = try workspace(
                """
                    import os, time
                    if not os.path.exists("hung"):
                        open("hung", "w").close()
                        time.sleep(1000)
                    return len(solution_str)
                """)
            let outcome = try await workspace.train(["trainer.total_training_steps=1", "reward.timeout_s=5"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try sum(workspace, "reward/failed_timed_out") == 1)
            #expect(try sum(workspace, "reward/failed") == 1)
        }

        @Test func whatARewardPrintsIsNoAnswer() async throws {
            let workspace = try workspace(
                """
                    import os, sys
                    print("garbage", 1.0, flush=True)
                    os.write(1, b'\\xff\\xfe{}[]\\n\\x00\\x00\\x00\\x01')
                    sys.stderr.write("noise\\n")
                    return len(solution_str)
                """)
            let outcome = try await workspace.train(["trainer.total_training_steps=2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try workspace.history().count == 2)
            #expect(try sum(workspace, "reward/failed") == 0)
            #expect(!outcome.output.contains("garbage"))
        }

        /// Names that are no metric's, or another metric's, harm nothing.
        @Test func detailsOfAnyNameAreKept() async throws {
            let workspace = try workspace(
                """
                    return {"score": len(solution_str), "failed": 5, "failed_raised": 5, "is right": 2, "": 3, "größe/x": 4}
                """)
            let outcome = try await workspace.train(["trainer.total_training_steps=1"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let step = try #require(workspace.history().first)
            #expect(step["reward/failed"] == 0)
            #expect(step["reward/detail/failed"] == 5)
            #expect(step["reward/detail/is_right"] == 2)
            #expect(step["reward/detail/gr__e_x"] == 4)
        }

        @Test func everyRewardFailing() async throws {
            let workspace = try workspace("    raise ValueError('boom')\n")
            let outcome = try await workspace.train(["trainer.total_training_steps=2", "reward.on_failure=drop_group"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("every reward failed"))
            let history = try workspace.history()
            #expect(history.map { $0["reward/failed"] } == [16, 16])
            #expect(history[0]["rollout/weight_digest"] == history[1]["rollout/weight_digest"])
        }

        @Test func abortEndsTheRunWithTheReason() async throws {
            let workspace = try workspace("    raise ValueError('boom')\n")
            let outcome = try await workspace.train(["reward.on_failure=abort"])
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("16 of 16 rewards failed") && outcome.errors.contains("boom"), "\(outcome)")
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .failed)
            #expect(summary.failure?.contains("boom") == true)
        }

        @Test func chosenScoreStandsInForFailures() async throws {
            let workspace = try workspace("    raise ValueError('boom')\n")
            let outcome = try await workspace.train([
                "reward.on_failure=score", "reward.failure_score=-2", "trainer.total_training_steps=1",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let step = try #require(workspace.history().first)
            #expect(step["critic/score/mean"] == -2)
            #expect(step["reward/failed"] == 16)
        }

        @Test(
            arguments: [
                ("import no_such_module\n", "no_such_module"), ("def compute_score(:\n", "SyntaxError"),
                ("score = 1\n", "compute_score"),
            ])
        func fileThatDoesNotLoadEndsTheRunBeforeTraining(text: String, named: String) async throws {
            let workspace = try Workspace(recipe: Self.recipe)
            try workspace.write("reward.py", text)
            let outcome = try await workspace.train()
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("reward.py") && outcome.errors.contains(named), "\(outcome)")
            #expect(!FileManager.default.fileExists(atPath: workspace.run.path))
        }

        @Test func missingRewardFile() async throws {
            let outcome = try await (try Workspace(recipe: Self.recipe)).train()
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("reward.py"))
        }
    }
}
