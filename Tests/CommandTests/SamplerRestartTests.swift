import Foundation
import Subprocess
import Telemetry
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Samplers on a pool of their own that are lost, and started anew while the ranks that learn go on.
    @Suite struct SamplerRestartTests {
        private static let pools = ["resource_pools={train: 1, sample: 2}", "roles.rollout=sample"]
        private static let short = [
            "trainer.total_training_steps=4", "trainer.test_freq=-1", "trainer.val_before_train=false",
        ]

        /// What nothing befell; made once.
        private static let undisturbed = Task {
            let workspace = try Workspace()
            let outcome = try await workspace.train(pools + short)
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            return try workspace.metrics()
        }

        private static func train(
            _ workspace: Workspace, _ overrides: [String], rehearsing failure: String
        ) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                ["train", "recipe.yaml"] + pools + short + overrides, in: workspace.folder,
                environment: ["FLEDGE_REHEARSE": failure])
        }

        private func expectOnlySamplersAnew(_ outcome: FledgeProcess.Outcome, rank: Int) {
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("rank \(rank) (process "), "\(outcome)")
            #expect(outcome.errors.contains("samplers are started anew, the others go on: restart 1 of at most 3"))
            #expect(!outcome.errors.contains("all ranks are started anew"), "\(outcome)")
            #expect(!outcome.errors.contains("rank 0 of 3 gives up"), "\(outcome)")
        }

        @Test(arguments: ["kill:1:1:generate", "kill:2:3:generate", "kill:2:2:sync_weights", "stop:2:2:sync_weights"])
        func theOthersGoOnWithTheSameNumbers(failure: String) async throws {
            let expected = try await Self.undisturbed.value, workspace = try Workspace()
            let outcome = try await Self.train(workspace, ["trainer.nccl_timeout=4"], rehearsing: failure)
            expectOnlySamplersAnew(outcome, rank: failure.hasPrefix("kill:1") ? 1 : 2)
            #expect(try workspace.metrics() == expected)
        }

        @Test(arguments: ["streaming", "one_step_off", "fully_async"])
        func answersThatWereLostAreDrawnAgain(mode: String) async throws {
            let workspace = try Workspace()
            let outcome = try await Self.train(
                workspace, ["async_training.mode=\(mode)"], rehearsing: "kill:2:2:generate")
            expectOnlySamplersAnew(outcome, rank: 2)
            let history = try workspace.history()
            #expect(history.map(\.step) == Array(1...4))
            for metrics in history {
                #expect((metrics["async/staleness/max"] ?? 99) <= (mode == "streaming" ? 0 : 1))
                #expect((metrics["actor/grad_norm"] ?? 0) > 0)
            }
        }

        /// Each time all of them are new: the rank that learns is the same process from the first step to the last.
        @Test func theyAreLostTooOften() async throws {
            let expected = try await Self.undisturbed.value, workspace = try Workspace()
            let settings = Self.pools + Self.short + ["rollout.max_restarts=1", "trainer.save_freq=1"]
            let outcome = try await workspace.train(settings) { process in
                guard try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) else { return }
                for _ in 0..<2 {
                    let ranks = children(of: process)
                    guard ranks.count == 3 else { return }
                    Glibc.kill(ranks[2], SIGKILL)
                    _ = try await FledgeProcess.wait(process) {
                        let now = children(of: process)
                        return now.count == 3 && !now.contains(ranks[1]) && !now.contains(ranks[2])
                    }
                    // It goes on where it was.
                    #expect(children(of: process).first == ranks[0] || !FledgeProcess.isRunning(process))
                    let steps = workspace.stepsWritten
                    _ = try await FledgeProcess.wait(process) { workspace.stepsWritten > steps }
                }
            }
            #expect(outcome.exitCode == 75 || outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("restart 1 of at most 1"), "\(outcome)")
            #expect(outcome.exitCode == 0 || outcome.errors.contains("the same command goes on from the last one"))
            let resumed = try await workspace.train(settings)
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == expected)
        }

        @Test func withoutRestartsOfTheirOwnAllEnd() async throws {
            let workspace = try Workspace()
            let outcome = try await Self.train(workspace, ["rollout.max_restarts=0"], rehearsing: "kill:2:3:generate")
            #expect(outcome.exitCode == 75 && !outcome.errors.contains("anew"), "\(outcome)")
        }

        @Test func aRankThatLearnsIsLostWithAll() async throws {
            let expected = try await Self.undisturbed.value, workspace = try Workspace()
            let outcome = try await Self.train(
                workspace, ["trainer.max_restarts=1", "trainer.save_freq=1"], rehearsing: "kill:0:3:update")
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains("all ranks are started anew"), "\(outcome)")
            #expect(!outcome.errors.contains("samplers are started anew"), "\(outcome)")
            #expect(try workspace.metrics() == expected)
        }
    }
}
