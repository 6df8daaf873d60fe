import Foundation
import Telemetry
import Testing

extension CommandSuites {
    @Suite struct TrainBenchTests {
        private func run(_ arguments: [String]) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                ["bench", "train", "--device", "cpu"] + arguments, in: FileManager.default.temporaryDirectory)
        }

        @Test(arguments: [
            ["--rows", "2", "--seq", "16"], ["--rows", "2", "--prompt", "9", "--answer", "6", "--answers", "3"],
            ["--rows", "2", "--seq", "16", "--forward-only"],
            ["--rows", "2", "--seq", "16", "--objective", "policy", "--states", "float32", "--checkpointing", "none"],
        ])
        func printsEveryField(_ arguments: [String]) async throws {
            let outcome = try await run(
                ["--shape", "tiny", "--weights", "random", "--steps", "2", "--json"] + arguments)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(json["shape"]?.string == "tiny" && json["dtype"]?.string == "float32")
            #expect(json["seconds"]?.elements.count == 2 && json["attention"]?.string == "cpu")
            for name in [
                "step_seconds", "tokens_per_second", "tflops", "tokens", "computed_tokens", "parameters", "loss",
                "peak_memory_gib",
            ] { #expect((json[name]?.double ?? 0) > 0, "\(name)") }
        }

        @Test func printsATable() async throws {
            let outcome = try await run(["--shape", "tiny", "--rows", "1", "--seq", "8", "--steps", "1"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.output.contains("tokens/s") && outcome.output.contains("\ntiny "), "\(outcome)")
        }

        @Test(arguments: [
            [], ["--shape", "gpt-5"], ["--shape", "tiny", "--model", "x"], ["--shape", "tiny", "--seq", "1"],
            ["--shape", "tiny", "--prompt", "4"], ["--shape", "tiny", "--states", "int3"],
            ["--shape", "tiny", "--checkpointing", "some"], ["--shape", "tiny", "--objective", "fun"],
            ["--shape", "tiny", "--attention", "eager"], ["--shape", "tiny", "--weights", "trained"],
            ["--shape", "tiny", "--micro-batch-tokens", "0"],
        ])
        func refusesWhatItCannotRun(_ arguments: [String]) async throws {
            let outcome = try await run(arguments)
            #expect(outcome.exitCode == 64, "\(outcome)")
        }
    }
}
