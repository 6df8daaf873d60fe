import Config
import Testing

@testable import Workers

/// From the settings of `rollout` to what the engine is made with.
@Suite struct RolloutEngineSettingsTests {
    private func config(_ overrides: String...) throws -> RunConfig {
        try RunConfig(
            yaml: "{model: {path: m}, data: {train_files: t}, reward: {type: exact_match}}", file: "recipe.yaml",
            overrides: overrides)
    }

    @Test func everySettingArrives() throws {
        let plain = RolloutEngineSettings(try config().rollout)
        var expected = RolloutEngineSettings()
        expected.maxRows = 1024
        #expect(plain == expected)
        let set = RolloutEngineSettings(
            try config(
                "rollout={gpu_memory_utilization: 0.75, max_num_batched_tokens: 4096, max_num_seqs: 64}",
                "rollout={enable_chunked_prefill: false, enable_prefix_caching: false, enforce_eager: true}",
                "rollout={free_cache_engine: false, block_size: 32, preemption: swap, swap_space: 1.5}",
                "rollout.kv_cache_dtype=fp8_e4m3",
                "rollout={quantization: int8, speculative: {method: ngram, num_speculative_tokens: 3}}"
            ).rollout)
        expected.memoryFraction = 0.75
        expected.maxStepTokens = 4096
        expected.maxRows = 64
        expected.prefillChunk = nil
        expected.prefixCaching = false
        expected.usesGraphs = false
        expected.freesCacheBetween = false
        expected.blockSize = 32
        expected.preemption = .swap(bytes: 3 << 29)
        expected.quantization = .int8
        expected.cachesInFloat8 = true
        expected.speculation = .init(tokens: 3, lookup: 2...4)
        #expect(set == expected)
    }

    @Test(arguments: [
        ("rollout.repetition_penalty", "1.5"), ("rollout.presence_penalty", "1"), ("rollout.frequency_penalty", "1"),
        ("rollout.min_tokens", "2"), ("rollout.quantization", "int4"), ("rollout.preemption", "swap"),
        ("rollout.kv_cache_dtype", "bfloat16"), ("rollout.speculative.method", "ngram"),
    ])
    func whatIsNotHeededIsRefused(_ name: String, _ value: String) throws {
        try RolloutEngineSettings.refuseUnheeded(try config())
        let error = try #require(throws: WorkerError.self) {
            try RolloutEngineSettings.refuseUnheeded(try config("\(name)=\(value)"))
        }
        #expect(error.code == .badSetting && error.message.contains(name))
    }

    @Test func aCacheOfTheModelsTypeIsHeeded() throws {
        try RolloutEngineSettings.refuseUnheeded(
            try config("rollout.kv_cache_dtype=bfloat16", "model.dtype=bfloat16"))
    }
}
