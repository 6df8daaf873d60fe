import Foundation
import Telemetry
import Testing

extension CommandSuites {
    @Suite struct RolloutBenchTests {
        @Test func printsEveryField() async throws {
            let outcome = try await FledgeProcess.run(
                [
                    "bench", "rollout", "--shape", "tiny", "--weights", "random", "--cases", "3x8x4,1x4x2", "--device",
                    "cpu", "--repeats", "2", "--max-num-seqs", "2", "--profile", "--json",
                ], in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(json["shape"]?.string == "tiny" && json["dtype"]?.string == "float32")
            for name in [
                "weight_bytes", "ready_seconds", "first_token_seconds", "bandwidth_gb_per_second", "peak_tflops",
                "threads",
            ] { #expect((json[name]?.double ?? 0) > 0, "\(name)") }
            #expect(json["engine"]?["max_num_seqs"]?.int == 2)
            let cases = try #require(json["cases"]).elements
            #expect(cases.map { $0["case"]?.string } == ["3x8x4", "1x4x2"])
            for one in cases {
                #expect(one["seconds"]?.elements.count == 2)
                for name in [
                    "tokens_per_second", "efficiency", "kv_bytes", "peak_memory_bytes", "decode_steps",
                    "prefilled_tokens",
                ] { #expect((one[name]?.double ?? 0) > 0, "\(name)") }
                let limit = try #require(one["limit"])
                #expect((limit["tokens_per_second"]?.double ?? 0) > 0 && limit["decode_step_ms"]?.double != nil)
                #expect(one["profile"]?["decode_seconds"]?.double != nil)
            }
        }

        @Test func printsATable() async throws {
            let outcome = try await FledgeProcess.run(
                ["bench", "rollout", "--shape", "tiny", "--cases", "2x4x2", "--device", "cpu", "--warmup", "none"],
                in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.output.contains("tokens/s") && outcome.output.contains("\n2x4x2 "), "\(outcome)")
        }

        @Test(arguments: [
            ["--shape", "gpt-5", "--cases", "1x1x1"], ["--shape", "tiny", "--cases", "1x1"],
            ["--shape", "tiny", "--cases", "1x1x1,"], ["--shape", "tiny", "--cases", "1x1x1", "--repeats", "0"],
            ["--shape", "tiny", "--cases", "1x1x1", "--weights", "trained"],
        ])
        func refusesWhatItCannotRun(_ arguments: [String]) async throws {
            let outcome = try await FledgeProcess.run(
                ["bench", "rollout", "--device", "cpu"] + arguments, in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 64, "\(outcome)")
        }

        /// Longer than the model knows: the engine's own message, and the code of bad input.
        @Test func namesACaseThatTheModelCannotHold() async throws {
            let outcome = try await FledgeProcess.run(
                ["bench", "rollout", "--shape", "tiny", "--cases", "1x2000x100", "--device", "cpu"],
                in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 2 && outcome.errors.contains("2048 positions"), "\(outcome)")
        }
    }
}

extension JSONValue {
    var elements: [JSONValue] { if case .array(let elements) = self { elements } else { [] } }
}
