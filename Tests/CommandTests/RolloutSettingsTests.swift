import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// The engine's settings in a recipe, and a checkpoint's own sampling settings.
    @Suite struct RolloutSettingsTests {
        private static let memoryMetrics = [
            "perf/rollout_sleep_ms", "perf/rollout_wake_ms", "perf/rollout_freed_gib",
        ]

        /// Giving the cache's memory to training between rollouts is timed and counted, and changes no number.
        @Test func theCacheIsFreedBetweenRollouts() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            for frees in [true, false] {
                let outcome = try await workspace.train(["rollout.free_cache_engine=\(frees)"])
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(try workspace.metrics() == whole.metrics)
                for step in try workspace.history() {
                    for name in Self.memoryMetrics {
                        #expect((step[MetricName(stringLiteral: name)] != nil) == frees, "\(name)")
                    }
                    if frees { #expect((step["perf/rollout_freed_gib"] ?? 0) > 0) }
                }
                try workspace.removeRun()
            }
        }

        /// Nothing of this may change a token on the CPU.
        @Test func howItIsScheduledChangesNoMetric() async throws {
            let whole = try await Uninterrupted.result()
            let workspace = try Workspace()
            let outcome = try await workspace.train([
                "rollout={block_size: 32, enable_chunked_prefill: false, max_num_seqs: 16, max_num_batched_tokens: 64}",
                "rollout={enable_prefix_caching: false, preemption: swap, swap_space: 0.01}",
            ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try tokensAlone(workspace.metrics()) == tokensAlone(whole.metrics))
        }

        /// Without what counts the prompts that were shared.
        private func tokensAlone(_ lines: [String]) throws -> [String?] {
            try lines.map { line in
                let value = try JSONValue(parsing: Array(line.utf8), path: nil)
                return ["rollout/weight_digest", "critic/score/mean", "response_length/mean"]
                    .map { "\(value[$0]?.double ?? .nan)" }.joined(separator: " ")
            }
        }

        @Test(arguments: ["quantization: int8", "speculative: {method: ngram}"])
        func whatTheEngineCanDoIsDone(_ setting: String) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(["rollout={\(setting)}", "trainer.total_training_steps=2"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(try workspace.metrics().count == 2)
        }

        @Test func theModelsOwnSamplingIsTheDefault() async throws {
            let workspace = try Workspace()
            let said = ["generate", "--model", "model", "--device", "cpu", "--prompt", "hello", "--max-tokens", "12"]
            let greedy = try await FledgeProcess.run(said, in: workspace.folder)
            #expect(!greedy.errors.contains("generation_config"), "\(greedy)")
            try workspace.write(
                "model/generation_config.json", #"{"do_sample": true, "temperature": 1.5, "top_k": 200}"#)
            let sampled = try await FledgeProcess.run(said, in: workspace.folder)
            #expect(sampled.exitCode == 0, "\(sampled)")
            #expect(sampled.errors.contains("by the model's generation_config.json: temperature 1.5, top_k 200"))
            #expect(sampled.output != greedy.output)
            let given = try await FledgeProcess.run(
                said + ["--temperature", "1.5", "--top-k", "200"], in: workspace.folder)
            #expect(given.output == sampled.output && !given.errors.contains("generation_config"), "\(given)")
            let asked = try await FledgeProcess.run(
                said + ["--temperature", "0", "--top-k", "0"], in: workspace.folder)
            #expect(asked.output == greedy.output, "\(asked)")
            // The chat and a file of prompts read it as well; training does not.
            try workspace.write("in.jsonl", "{\"prompt\": \"hello\"}\n")
            let batch = try await workspace.fledge(
                "generate", "--model", "model", "--device", "cpu", "--input", "in.jsonl", "--output", "out.jsonl",
                "--max-tokens", "3", "--n", "2")
            #expect(batch.exitCode == 0 && batch.errors.contains("temperature 1.5"), "\(batch)")
            let again = try await workspace.fledge(
                "generate", "--model", "model", "--device", "cpu", "--input", "in.jsonl", "--output", "out.jsonl",
                "--max-tokens", "3", "--n", "2", "--top-k", "0")
            #expect(again.exitCode == 2 && again.errors.contains("top_k was 200 and is 0"), "\(again)")
            let trained = try await workspace.train()
            #expect(trained.exitCode == 0 && !trained.errors.contains("generation_config"), "\(trained)")
            #expect(try await workspace.metrics() == Uninterrupted.result().metrics)
        }

        @Test func wrongUsage() async throws {
            let workspace = try Workspace()
            for (arguments, part) in [
                (["--min-tokens", "9", "--max-tokens", "8"], "--min-tokens must be from 0 to --max-tokens, which is 8")
            ] {
                let outcome = try await FledgeProcess.run(
                    ["generate", "--model", "model", "--device", "cpu", "--prompt", "a"] + arguments,
                    in: workspace.folder)
                #expect(outcome.exitCode == 64 && outcome.errors.contains(part), "\(outcome)")
            }
        }
    }
}
