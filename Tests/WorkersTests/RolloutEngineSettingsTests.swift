import Config
import Flow
import RolloutCore
import RolloutEngine
import TensorCore
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

    /// From there on to the engine itself.
    @Test func theEngineIsMadeWithAllOfThem() throws {
        #expect(
            RolloutEngineSettings(try config().rollout).options(mergesAdapter: false)
                == RolloutEngine.Options(maxRows: 1024, memoryFraction: 0.5))
        let options = RolloutEngineSettings(
            try config(
                "rollout={gpu_memory_utilization: 0.75, max_num_batched_tokens: 4096, max_num_seqs: 64}",
                "rollout={enable_chunked_prefill: false, enable_prefix_caching: false, enforce_eager: true}",
                "rollout={block_size: 32, preemption: swap, swap_space: 1.5, quantization: int8}",
                "rollout.speculative={method: ngram, num_speculative_tokens: 3, prompt_lookup_max: 5}"
            ).rollout
        ).options(mergesAdapter: true)
        #expect(
            options
                == RolloutEngine.Options(
                    maxRows: 64, maxStepTokens: 4096, cutsPrompts: false, blockSize: 32, prefixCaching: false,
                    usesGraphs: false, memoryFraction: 0.75, preemption: .swap(bytes: 3 << 29), mergesAdapter: true,
                    quantization: .int8PerChannel, speculation: Speculation(maxDraft: 3, minNgram: 2, maxNgram: 5)))
        #expect(
            RolloutEngineSettings(try config("rollout.quantization=int4").rollout).options(mergesAdapter: false)
                .quantization == .int4(group: 128))
    }

    /// What decides how tokens are drawn goes into every training request; validation draws as its own settings say.
    @Test func requestsCarryThePenalties() throws {
        let plan = try RunPlan(
            config(
                "device=cpu", "rollout={repetition_penalty: 1.5, presence_penalty: -1, frequency_penalty: 0.5}",
                "rollout.min_tokens=2"))
        let rollout = plan.loop(totalSteps: 1).rollout
        #expect(rollout.repetitionPenalty == 1.5 && rollout.presencePenalty == -1 && rollout.frequencyPenalty == 0.5)
        #expect(rollout.minTokens == 2)
        let validation = plan.validation
        #expect(validation.repetitionPenalty == 1 && validation.presencePenalty == 0 && validation.minTokens == 0)
    }

    /// Everything is heeded but a cache of another type than the model's.
    @Test(arguments: [
        ("rollout.repetition_penalty", "1.5"), ("rollout.presence_penalty", "1"), ("rollout.frequency_penalty", "1"),
        ("rollout.min_tokens", "2"), ("rollout.quantization", "int4"), ("rollout.preemption", "swap"),
        ("rollout.speculative.method", "ngram"),
    ])
    func whatIsHeededIsTaken(_ name: String, _ value: String) throws {
        try RolloutEngineSettings.refuseUnheeded(try config("\(name)=\(value)"))
    }

    @Test func whatIsNotHeededIsRefused() throws {
        try RolloutEngineSettings.refuseUnheeded(try config())
        let error = try #require(throws: WorkerError.self) {
            try RolloutEngineSettings.refuseUnheeded(try config("rollout.kv_cache_dtype=bfloat16"))
        }
        #expect(error.code == .badSetting && error.message.contains("rollout.kv_cache_dtype"))
    }

    @Test func aCacheOfTheModelsTypeIsHeeded() throws {
        try RolloutEngineSettings.refuseUnheeded(
            try config("rollout.kv_cache_dtype=bfloat16", "model.dtype=bfloat16"))
    }
}
