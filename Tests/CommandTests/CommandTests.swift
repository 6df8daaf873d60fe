import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// The other commands, each on what a run left.
    @Suite struct CommandTests {
        @Test func version() async throws {
            let outcome = try await (try Workspace()).fledge("--version")
            #expect(outcome.exitCode == 0)
            #expect(outcome.output.contains("fledge ") && outcome.output.contains("torch 2."), "\(outcome)")
        }

        @Test func wrongUsage() async throws {
            let workspace = try Workspace()
            #expect(try await workspace.fledge("frobnicate").exitCode == 64)
            #expect(try await workspace.fledge("generate", "--model", "model").exitCode == 64)
        }

        @Test func selfTestPasses() async throws {
            let outcome = try await (try Workspace()).fledge("selftest", "--device", "cpu", "--json")
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(json["passed"]?.bool == true)
        }

        @Test func generatesGreedilyTheSameTwice() async throws {
            let workspace = try Workspace()
            let said = ["generate", "--model", "model", "--device", "cpu", "--chat", "hello", "--max-tokens", "5"]
            let outcome = try await FledgeProcess.run(said, in: workspace.folder)
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.errors.contains(" new, "))
            #expect(outcome.output.hasSuffix("\n"))
            #expect(try await FledgeProcess.run(said, in: workspace.folder).output == outcome.output)
            let plain = try await workspace.fledge(
                "generate", "--model", "model", "--device", "cpu", "--prompt", "hello", "--max-tokens", "5",
                "--temperature", "1")
            #expect(plain.exitCode == 0, "\(plain)")
        }

        @Test func generateNamesAMissingModel() async throws {
            let outcome = try await (try Workspace()).fledge("generate", "--model", "nowhere", "--prompt", "a")
            #expect(outcome.exitCode == 2, "\(outcome)")
            #expect(outcome.errors.contains("nowhere"))
        }

        /// Trained weights answer alike from the checkpoint and from the folder that is exported of it.
        @Test func runIsShownMeasuredAndExported() async throws {
            let workspace = try Workspace()
            let loggers = ["trainer.logger=[console, jsonl, tensorboard, html]"]
            let trained = try await workspace.train(loggers)
            #expect(trained.exitCode == 0, "\(trained)")
            #expect(
                trained.output.contains("held-out exact match: before")
                    && trained.output.contains("the run's folder: run"))

            let shown = try await workspace.fledge("runs", "show", "run", "--json")
            #expect(shown.exitCode == 0, "\(shown)")
            let summary = try JSONValue(parsing: Array(shown.output.utf8), path: nil)
            #expect(summary["heldout_exact_match"]?["before"]?.double != nil)
            #expect(summary["heldout_exact_match"]?["after"]?.double != nil)
            #expect(summary["status"]?.string == "finished")
            #expect(FileManager.default.fileExists(atPath: workspace.run.report))

            let plotted = try await workspace.fledge("runs", "show", "run")
            #expect(plotted.exitCode == 0 && plotted.output.contains("report.html"), "\(plotted)")
            let listed = try await workspace.fledge("runs", ".")
            #expect(listed.exitCode == 0 && listed.output.contains("finished"), "\(listed)")

            let exported = try await workspace.fledge("export", "--run", "run", "--to", "exported")
            #expect(exported.exitCode == 0, "\(exported)")
            let again = try await workspace.fledge("export", "--run", "run", "--to", "exported")
            #expect(again.exitCode == 2 && again.errors.contains("exported"), "\(again)")

            let before = try await workspace.fledge("eval", "recipe.yaml", "--json")
            let ofRun = try await workspace.fledge("eval", "--run", "run", "--json")
            let ofExport = try await workspace.fledge("eval", "recipe.yaml", "model.path=exported", "--json")
            for outcome in [before, ofRun, ofExport] {
                #expect(outcome.exitCode == 0, "\(outcome)")
                let metrics = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
                #expect(metrics["val/exact_match"]?.double != nil)
                #expect(metrics["val/score/mean"]?.double != nil)
            }
            #expect(ofRun.output == ofExport.output)

            func answer(_ model: String) async throws -> String {
                let outcome = try await workspace.fledge(
                    "generate", "--model", model, "--device", "cpu", "--chat", "hello", "--max-tokens", "12")
                #expect(outcome.exitCode == 0, "\(outcome)")
                return outcome.output
            }
            // Training moved the weights far enough to show.
            let answers = (untrained: try await answer("model"), trained: try await answer("exported"))
            #expect(answers.trained != answers.untrained)
        }

        @Test func commandsRefuseFoldersWithoutARun() async throws {
            let workspace = try Workspace()
            let shown = try await workspace.fledge("runs", "show", "model", "--json")
            #expect(shown.exitCode == 2 && shown.errors.contains("model"), "\(shown)")
            let exported = try await workspace.fledge("export", "--run", "nowhere", "--to", "exported")
            #expect(exported.exitCode == 2 && exported.errors.contains("nowhere"), "\(exported)")
            let measured = try await workspace.fledge("eval", "--run", "nowhere")
            #expect(measured.exitCode == 2 && measured.errors.contains("nowhere"), "\(measured)")
        }
    }
}
