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
