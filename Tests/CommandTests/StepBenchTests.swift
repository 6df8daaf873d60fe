import Foundation
import Telemetry
import Testing

extension CommandSuites {
    @Suite struct StepBenchTests {
        @Test func givesEveryPhase() async throws {
            let outcome = try await FledgeProcess.run(
                [
                    "bench", "step", "--shape", "tiny", "--prompts", "2", "--samples", "4", "--input", "6", "--output",
                    "5", "--steps", "2", "--device", "cpu", "--json",
                ], in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(json["all_step_seconds"]?.elements.count == 2)
            for phase in ["generate", "sleep", "log_probs", "update", "wake"] {
                #expect(json["phases"]?[phase]?["seconds"]?.double != nil, "\(phase)")
            }
            // 8 answers of 4 computed tokens and 2 prompts of 6, computed once each.
            #expect(json["computed_tokens"]?.int == 8 * 4 + 2 * 6)
            #expect(json["sequence_tokens"]?.int == 8 * 10)
            // The sampler and the trainer agree, and there is something to learn.
            #expect((json["rollout_logprobs_diff_max"]?.double ?? 1) < 1e-4)
            #expect((json["grad_norm"]?.double ?? 0) > 0)
        }

        @Test(arguments: [["--shape", "gpt-5"], ["--shape", "tiny", "--samples", "0"]])
        func refusesWhatItCannotRun(_ arguments: [String]) async throws {
            let outcome = try await FledgeProcess.run(
                ["bench", "step", "--device", "cpu"] + arguments, in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 64, "\(outcome)")
        }
    }
}
