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

        /// By itself the sampler stays awake where there is room, but for a cache that an evaluation made larger than a batch needs.
        @Test(arguments: [[], ["trainer.n_gpus_per_node=2", "actor.fsdp_config.fsdp_size=-1"]])
        func whereThereIsRoomTheSamplerStaysAwake(layout: [String]) async throws {
            let settings = layout + ["data.arithmetic.heldout=40", "trainer.test_freq=2", "trainer.save_freq=-1"]
            let sleeps = try Workspace(), awake = try Workspace()
            let first = try await sleeps.train(settings + ["rollout.free_cache_engine=true"])
            #expect(first.exitCode == 0 && !first.errors.contains("the sampler"), "\(first)")
            let second = try await awake.train(settings)
            #expect(
                second.exitCode == 0 && second.errors.contains("the sampler stays awake while the policy learns"),
                "\(second)")
            #expect(try awake.metrics() == sleeps.metrics())
            for name in Self.memoryMetrics.map({ MetricName(stringLiteral: $0) }) {
                #expect(try sleeps.history().allSatisfy { $0[name] != nil })
                #expect(try awake.history().allSatisfy { $0[name] == nil })
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

        /// What a line, the command and a recipe say of logits arrives at them.
        @Test func adjustmentsArrive() async throws {
            let workspace = try Workspace()
            try workspace.write(
                "in.jsonl",
                """
                {"prompt": "a", "logit_bias": {"65": 1000}}
                {"prompt": "a", "logit_bias": {"65": 1000, "66": 998.5}, "frequency_penalty": 1}
                {"prompt": "a", "logit_bias": {"257": 1000}, "min_tokens": 2}
                {"prompt": "a", "logit_bias": {"257": 1000}}

                """)
            let outcome = try await workspace.fledge(
                "generate", "--model", "model", "--device", "cpu", "--input", "in.jsonl", "--output", "out.jsonl",
                "--max-tokens", "4", "--temperature", "0", "--ordered")
            #expect(outcome.exitCode == 0, "\(outcome)")
            let text = try String(contentsOf: workspace.folder.appending(path: "out.jsonl"), encoding: .utf8)
            let tokens = try text.split(separator: "\n").map { line -> [Int] in
                guard case .array(let samples)? = try JSONValue(parsing: Array(line.utf8), path: nil)["samples"],
                    case .array(let ids)? = samples.first?["token_ids"]
                else { return [] }
                return ids.compactMap(\.int)
            }
            try #require(tokens.count == 4)
            #expect(tokens[0] == [65, 65, 65, 65])
            // Each time it is said it costs one; beyond the gap (and what the model itself says) the other has its turn.
            #expect(Set(tokens[1]) == [65, 66])
            #expect(tokens[2].count == 3 && tokens[2].last == 257 && !tokens[2].dropLast().contains(257))
            #expect(tokens[3] == [257])

            let said = ["generate", "--model", "model", "--device", "cpu", "--prompt", "aaaa", "--max-tokens", "24"]
            let plain = try await FledgeProcess.run(said, in: workspace.folder)
            let penalised = try await FledgeProcess.run(said + ["--repetition-penalty", "50"], in: workspace.folder)
            #expect(plain.exitCode == 0 && penalised.exitCode == 0 && plain.output != penalised.output)
            let trained = try await workspace.train(["rollout.min_tokens=6", "trainer.total_training_steps=1"])
            #expect(trained.exitCode == 0, "\(trained)")
            #expect(try workspace.history().first?["response_length/mean"] == 6)
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
