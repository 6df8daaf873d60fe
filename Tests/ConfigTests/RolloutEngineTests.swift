import Testing

@testable import Config

/// The settings of `rollout` that say how sampling is computed.
@Suite struct RolloutEngineTests {
    @Test func defaultsAreVerls() throws {
        let engine = try read().rollout.engine
        #expect(engine.gpuMemoryUtilization == 0.5)
        #expect(engine.maxNumBatchedTokens == 8192)
        #expect(engine.maxNumSeqs == 1024)
        #expect(engine.enableChunkedPrefill && engine.enablePrefixCaching && engine.freeCacheEngine == nil)
        #expect(!engine.enforceEager)
        #expect(engine.blockSize == 16)
        #expect(engine.kvCacheDType == .auto)
        #expect(engine.preemption == .recompute)
        #expect(engine.quantization == .none)
        let rollout = try read().rollout
        #expect(rollout.speculative.method == .none)
        #expect(rollout.repetitionPenalty == 1 && rollout.presencePenalty == 0 && rollout.frequencyPenalty == 0)
        #expect(rollout.minTokens == 0)
    }

    @Test func everySettingIsReadAndWrittenBack() throws {
        let config = try read(
            minimal,
            "rollout={gpu_memory_utilization: 0.85, max_num_batched_tokens: 16384, max_num_seqs: 512, block_size: 32}",
            "rollout={enable_chunked_prefill: false, enable_prefix_caching: false, enforce_eager: true}",
            "rollout={free_cache_engine: false, kv_cache_dtype: bfloat16, preemption: swap, swap_space: 2.5}",
            "rollout={quantization: int4, min_tokens: 3, repetition_penalty: 1.1, presence_penalty: -0.5}",
            "rollout={frequency_penalty: 0.25, speculative: {method: ngram, num_speculative_tokens: 6}}",
            "rollout.speculative={prompt_lookup_max: 5, prompt_lookup_min: 3}")
        let (rollout, engine) = (config.rollout, config.rollout.engine)
        #expect(engine.gpuMemoryUtilization == 0.85 && engine.maxNumBatchedTokens == 16384)
        #expect(engine.maxNumSeqs == 512 && engine.blockSize == 32)
        #expect(!engine.enableChunkedPrefill && !engine.enablePrefixCaching && engine.freeCacheEngine == false)
        #expect(engine.enforceEager && engine.kvCacheDType == .bfloat16)
        #expect(engine.preemption == .swap && engine.swapSpace == 2.5 && engine.quantization == .int4)
        #expect(rollout.minTokens == 3 && rollout.repetitionPenalty == 1.1)
        #expect(rollout.presencePenalty == -0.5 && rollout.frequencyPenalty == 0.25)
        let speculative = rollout.speculative
        #expect(speculative.method == .ngram && speculative.numSpeculativeTokens == 6)
        #expect(speculative.promptLookupMax == 5 && speculative.promptLookupMin == 3)
        let again = try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml")
        #expect(again == config)
        #expect(again.resolvedYAML() == config.resolvedYAML())
    }

    @Test(arguments: [
        ("rollout.gpu_memory_utilization=0.99", "at most 0.98"),
        ("rollout.gpu_memory_utilization=0.01", "at least 0.05"),
        ("rollout.gpu_memory_utilization=85%", "expected a number"), ("rollout.max_num_batched_tokens=8", "from 16"),
        ("rollout.enforce_eager=yes", "write true or false"), ("rollout.block_size=8", "from 16"),
        ("rollout.block_size=40", "as 64"), ("rollout.block_size=48", "power of two"),
        ("rollout.preemption=abort", "recompute or swap"),
        ("rollout.quantization=int2", "none, int8 or int4"), ("rollout.swap_space=-1", "at least 0"),
        ("rollout.speculative.method=magic", "none or ngram"), ("rollout.repetition_penalty=0", "more than 0"),
        ("rollout.presence_penalty=3", "at most 2"), ("rollout.min_tokens=-1", "from 0"),
    ])
    func outOfRange(_ argument: String, _ part: String) throws {
        let found = problems(minimal, [argument])
        try #require(found.count == 1, "\(found)")
        #expect(found[0].argument == argument)
        #expect(found[0].description.contains(part), "\(found[0])")
    }

    @Test(arguments: [
        (
            ["rollout.max_num_seqs=9000"],
            ["rollout.max_num_batched_tokens = 8192 (default)", "rollout.max_num_seqs = 9000", "at least 9000"]
        ),
        (
            [
                "rollout.enable_chunked_prefill=false", "data.max_prompt_length=9000",
                "actor.ppo_max_token_len_per_gpu=32768",
            ], ["rollout.max_num_batched_tokens = 8192", "data.max_prompt_length = 9000", "at least 9000"]
        ),
        (
            ["rollout.preemption=swap", "rollout.swap_space=0"],
            ["rollout.preemption = swap", "rollout.swap_space = 0.0"]
        ),
        (["rollout.swap_space=8"], ["rollout.swap_space = 8.0", "rollout.preemption = recompute"]),
        (
            ["rollout.speculative.num_speculative_tokens=8"],
            ["rollout.speculative.num_speculative_tokens = 8", "rollout.speculative.method = none"]
        ),
        (
            ["rollout.speculative={method: ngram, prompt_lookup_min: 5, prompt_lookup_max: 3}"],
            ["rollout.speculative.prompt_lookup_min = 5", "rollout.speculative.prompt_lookup_max = 3"]
        ),
        (
            ["rollout.min_tokens=600", "data.max_response_length=512"],
            ["rollout.min_tokens = 600", "data.max_response_length = 512", "at most 512"]
        ),
    ])
    func conflict(_ overrides: [String], _ mentions: [String]) throws {
        let found = problems(minimal, overrides)
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .conflict && found[0].remedy != nil)
        for mention in mentions { #expect(found[0].description.contains(mention), "\(found[0]) lacks \(mention)") }
    }

    @Test(arguments: [
        (["rollout.repetition_penalty=1.2"], "rollout.repetition_penalty"),
        (["rollout.presence_penalty=0.1"], "rollout.presence_penalty"),
        (["rollout.frequency_penalty=-0.1"], "rollout.frequency_penalty"),
        (["rollout.ignore_eos=true", "rollout.min_tokens=2"], "rollout.ignore_eos"),
    ])
    func warning(_ overrides: [String], _ keyPath: String) throws {
        let config = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: overrides)
        #expect(config.warnings.map(\.keyPath) == [keyPath])
    }

    /// What people bring along from verl, vLLM and TRL.
    @Test(arguments: [
        ("rollout.tensor_parallel_size=2", "write rollout.tensor_model_parallel_size"),
        ("rollout.max_model_len=4096", "data.max_prompt_length"),
        ("rollout.kv_cache_dtype=fp8", "is fp8_e4m3 here"), ("rollout.kv_cache_dtype=fp8_e5m2", "not supported"),
        ("rollout.kv_cache_dtype=bf16", "is bfloat16 here"),
        ("rollout.quantization=awq", "says itself"), ("rollout.enable_sleep_mode=true", "rollout.free_cache_engine"),
        ("rollout.preemption_mode=swap", "write rollout.preemption"),
        ("rollout.num_speculative_tokens=3", "rollout.speculative.num_speculative_tokens"),
        ("rollout.speculative.method=eagle", "not supported yet"),
        ("actor_rollout_ref.rollout.gpu_memory_utilization=0.6", "write rollout.gpu_memory_utilization"),
        ("vllm_gpu_memory_utilization=0.3", "write rollout.gpu_memory_utilization"),
        ("rollout.max_num_batched_token=1024", "did you mean rollout.max_num_batched_tokens"),
    ])
    func peersNames(_ argument: String, _ part: String) throws {
        let found = problems(minimal, [argument])
        try #require(found.count == 1, "\(found)")
        #expect(found[0].code == .notSupported || found[0].code == .unknownKey)
        #expect(found[0].description.contains(part), "\(found[0])")
    }
}
