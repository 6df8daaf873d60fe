import Foundation
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    @Suite struct ResumeTests {
        /// When a run is killed.
        enum Moment: String, CaseIterable, Sendable {
            case beforeAnyStep, beforeFirstCheckpoint, betweenCheckpoints, whileCheckpointIsWritten
            case whileFirstCheckpointIsWritten, afterLastStep

            func isNow(_ workspace: Workspace) -> Bool {
                switch self {
                case .beforeAnyStep: FileManager.default.fileExists(atPath: workspace.run.config)
                case .beforeFirstCheckpoint: workspace.stepsWritten >= 1
                case .betweenCheckpoints: workspace.stepsWritten >= 3
                case .whileFirstCheckpointIsWritten: !workspace.checkpoints("tmp-step").isEmpty
                case .whileCheckpointIsWritten: !workspace.checkpoints("tmp-step-000004").isEmpty
                case .afterLastStep: workspace.stepsWritten >= Workspace.steps
                }
            }

            /// Whether the kill came when it should, going by what it left.
            func wasHit(_ workspace: Workspace) -> Bool {
                switch self {
                case .beforeAnyStep: workspace.stepsWritten == 0
                case .beforeFirstCheckpoint: workspace.checkpoints().isEmpty
                case .betweenCheckpoints: !workspace.checkpoints().contains("step-000006")
                case .whileFirstCheckpointIsWritten:
                    !workspace.checkpoints("tmp-step").isEmpty && workspace.checkpoints().isEmpty
                case .whileCheckpointIsWritten:
                    !workspace.checkpoints("tmp-step").isEmpty && workspace.checkpoints() == ["step-000002"]
                case .afterLastStep: !workspace.checkpoints().contains("step-000006")
                }
            }
        }

        @Test func twoRunsOfOneSeedPrintTheSameMetrics() async throws {
            let first = try await Uninterrupted.result()
            let workspace = try Workspace()
            let outcome = try await workspace.train()
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try workspace.metrics() == first.metrics)
            #expect(first.metrics.count == Workspace.steps)
            // The comparison means something only where the weights move, and where another seed prints other numbers.
            let history = try workspace.history()
            #expect(Set(history.compactMap { $0["rollout/weight_digest"] }).count == Workspace.steps)
            #expect(history.contains { ($0["actor/grad_norm"] ?? 0) > 0 })
            try workspace.removeRun()
            _ = try await workspace.train(["seed=8"])
            #expect(try workspace.metrics() != first.metrics)
        }

        @Test(arguments: Moment.allCases)
        func killedRunGoesOnAsIfNothingHadBeen(_ moment: Moment) async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            let wasHit = try await kill(workspace, at: moment)
            #expect(wasHit, "no try killed the run \(moment.rawValue)")
            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole.metrics)
            #expect(workspace.checkpoints("tmp-").isEmpty)
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .finished)
            #expect(summary.heldOutExactMatch == whole.exactMatch)
        }

        @Test func runKilledAgainAndAgainGetsThere() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            for step in [1, 3, 5] {
                _ = try await workspace.train { process in
                    if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= step }) {
                        Glibc.kill(process, SIGKILL)
                    }
                }
            }
            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole.metrics)
        }

        @Test func damagedCheckpointIsPassedOver() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            _ = try await workspace.train(["trainer.total_training_steps=\(Workspace.steps)"])
            #expect(workspace.checkpoints() == ["step-000002", "step-000004", "step-000006"])
            for step in ["step-000006", "step-000004"] {
                let file = workspace.run.checkpoints + "/\(step)/state.json"
                try Data("{}".utf8).write(to: URL(fileURLWithPath: file))
            }
            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(resumed.errors.contains("step-000006") && resumed.errors.contains("going on from step 2"))
            #expect(try workspace.metrics() == whole.metrics)
        }

        @Test func interruptedRunSavesAndSaysHowToGoOn() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            var stopped: FledgeProcess.Outcome?
            for _ in 1...20 where stopped?.exitCode != 130 {
                try workspace.removeRun()
                stopped = try await workspace.train { process in
                    if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) {
                        Glibc.kill(process, SIGINT)
                    }
                }
            }
            let outcome = try #require(stopped)
            #expect(outcome.exitCode == 130, "\(outcome)")
            #expect(outcome.output.contains("the same command goes on from there"))
            #expect(outcome.errors.contains("stopping after this step"))
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .interrupted)
            #expect(summary.steps == workspace.stepsWritten && summary.steps < Workspace.steps)
            #expect(workspace.checkpoints().last?.hasSuffix("\(summary.steps)") == true)

            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole.metrics)
            #expect(try workspace.run.readSummary()?.status == .finished)
        }

        /// From the first moment at which `fledge` minds Ctrl-C, pressing it on and on ends the process, and nothing is lost.
        @Test func impatienceEndsTheProcessAtOnce() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            let outcome = try await workspace.train { process in
                guard try await FledgeProcess.wait(process, until: { mindsInterrupts(process) }) else { return }
                _ = try await FledgeProcess.wait(process) {
                    Glibc.kill(process, SIGINT)
                    return false
                }
            }
            #expect(outcome.exitCode == 130, "\(outcome)")
            let resumed = try await workspace.train()
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole.metrics)
        }

        @Test func finishedRunTrainsNothingMoreUnlessBegunAnew() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            _ = try await workspace.train()
            let written = try Data(contentsOf: URL(fileURLWithPath: workspace.run.metrics))

            let again = try await workspace.train()
            #expect(again.exitCode == 0, "\(again)")
            #expect(again.output.contains("nothing was trained now"))
            #expect(try Data(contentsOf: URL(fileURLWithPath: workspace.run.metrics)) == written)
            let summary = try workspace.run.readSummary()
            #expect(summary?.status == .finished)
            #expect(summary?.heldOutExactMatch == whole.exactMatch)

            let anew = try await workspace.train(["trainer.resume_mode=disable", "seed=9"])
            #expect(anew.exitCode == 0, "\(anew)")
            #expect(!anew.output.contains("nothing was trained now"))
            #expect(try workspace.metrics() != whole.metrics)
            #expect(try workspace.metrics().count == Workspace.steps)
        }

        @Test func finishedRunGoesOnWhenGivenMoreSteps() async throws {
            let workspace = try Workspace()
            let constant = ["actor.optim.lr_scheduler_type=constant"]
            _ = try await workspace.train(constant)
            let whole = try workspace.metrics(), summary = try workspace.run.readSummary()
            try workspace.removeRun()
            _ = try await workspace.train(constant + ["trainer.total_training_steps=2"])
            let extended = try await workspace.train(constant)
            #expect(extended.exitCode == 0, "\(extended)")
            #expect(try workspace.metrics() == whole)
            // The held-out rate is measured anew, on the weights of the new end.
            #expect(extended.errors.contains("going on from step 2"))
            #expect(try workspace.run.readSummary()?.heldOutExactMatch == summary?.heldOutExactMatch)
        }

        @Test func runGoesOnFromTheCheckpointThatIsNamed() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            _ = try await workspace.train()
            let setBack = try await workspace.train([
                "trainer.resume_mode=resume_path", "trainer.resume_from_path=run/checkpoints/step-000002",
            ])
            #expect(setBack.exitCode == 0, "\(setBack)")
            #expect(setBack.errors.contains("going on from step 2"))
            #expect(try workspace.metrics() == whole.metrics)

            let elsewhere = try await workspace.train([
                "trainer.resume_mode=resume_path", "trainer.resume_from_path=run/checkpoints/step-000004",
                "trainer.default_local_dir=other",
            ])
            #expect(elsewhere.exitCode == 0, "\(elsewhere)")
            let other = RunFolder(workspace.folder.appending(path: "other").path)
            #expect(try MetricsHistory.reproducibleLines(of: other.metrics) == Array(whole.metrics.suffix(2)))

            let missing = try await workspace.train([
                "trainer.resume_mode=resume_path", "trainer.resume_from_path=run/checkpoints/step-000005",
            ])
            #expect(missing.exitCode == 2 && missing.errors.contains("step-000005"), "\(missing)")
        }

        @Test func checkpointOfAnotherModelIsRefused() async throws {
            let workspace = try Workspace()
            _ = try await workspace.train(["trainer.total_training_steps=2"])
            try TinyModel(layers: 1).write(to: workspace.folder.appending(path: "other"))
            let outcome = try await workspace.train(["model.path=other"])
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("was written for another model than"))
        }

        // MARK: -

        /// Kills a fresh run at the moment; tries again where the run was faster than the eye. A kill at any other moment must
        /// do no harm either, so that tries that missed are no failure.
        private func kill(_ workspace: Workspace, at moment: Moment) async throws -> Bool {
            for _ in 1...40 {
                try workspace.removeRun()
                let outcome = try await workspace.train { process in
                    if try await FledgeProcess.wait(process, until: { moment.isNow(workspace) }) {
                        Glibc.kill(process, SIGKILL)
                    }
                }
                if outcome.wasKilled, moment.wasHit(workspace) { return true }
            }
            return false
        }
    }
}

/// Whether a process takes SIGINT in hand: it ignores or catches the signal.
private func mindsInterrupts(_ process: pid_t) -> Bool {
    let status = (try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)) ?? ""
    return ["SigIgn:", "SigCgt:"].contains { field in
        let line = status.split(separator: "\n").first { $0.hasPrefix(field) }
        let mask = line.flatMap { UInt64($0.dropFirst(field.count).filter { !$0.isWhitespace }, radix: 16) } ?? 0
        return mask & (1 << UInt64(SIGINT - 1)) != 0
    }
}
