/// The keys of `rollout` that say how sampling is computed, not what is sampled. Names and meanings are verl's, where it has them.
public struct RolloutEngineKeys: Hashable, Sendable {
    public enum KeyValueDType: String, CaseIterable, Hashable, Sendable, SettingWord {
        /// model.dtype.
        case auto
        case bfloat16
        case float8 = "fp8_e4m3"
    }

    public enum Preemption: String, CaseIterable, Hashable, Sendable, SettingWord {
        case recompute, swap
    }

    public enum Quantization: String, CaseIterable, Hashable, Sendable, SettingWord {
        case none, int8, int4
    }

    public let tensorParallelSize: Int
    public let gpuMemoryUtilization: Double
    public let maxNumBatchedTokens: Int
    public let maxNumSeqs: Int
    public let enableChunkedPrefill: Bool
    public let enablePrefixCaching: Bool
    public let enforceEager: Bool
    /// nil: where training has no room beside the cache.
    public let freeCacheEngine: Bool?
    public let blockSize: Int
    public let kvCacheDType: KeyValueDType
    public let preemption: Preemption
    /// GiB.
    public let swapSpace: Double
    public let quantization: Quantization

    init(_ section: inout SectionReader) {
        tensorParallelSize = section.int(
            "tensor_model_parallel_size", default: 1, in: 1...1024,
            doc:
                "Ranks that sample together, each with a part of every matrix; 1: each rank samples from whole weights. Weights "
                + "are brought from training's layout to this one in memory.")
        gpuMemoryUtilization = section.number(
            "gpu_memory_utilization", default: 0.5, in: NumberRange(lower: 0.05, upper: 0.98),
            doc:
                "The share of the device's memory that the key-value cache and a sampling step's activations may take, of what "
                + "weights and trainer leave free when the cache is made. Half, as in verl: training's activations and the "
                + "allocator's spare blocks need room beside it.")
        maxNumBatchedTokens = section.int(
            "max_num_batched_tokens", default: 8192, in: 16...16_777_216,
            doc: "The most tokens of one step, decoded ones and prompts' together.")
        maxNumSeqs = section.int(
            "max_num_seqs", default: 1024, in: 1...1_048_576, doc: "The most responses that decode at a time.")
        enableChunkedPrefill = section.bool(
            "enable_chunked_prefill", default: true,
            doc:
                "Cut prompts so that each step's tokens are used up beside decoding. Without, no prompt is cut: one that fits no "
                + "step of max_num_batched_tokens is refused, others wait for a step with room.")
        enablePrefixCaching = section.bool(
            "enable_prefix_caching", default: true,
            doc: "Find the beginnings of prompts that are in the cache already; those of old weights never are.")
        enforceEager = section.bool(
            "enforce_eager", default: false,
            doc: "Launch each kernel of a decoding step by itself, without CUDA graphs.")
        freeCacheEngine = section.optionalBool(
            "free_cache_engine",
            doc:
                "Give the cache's and the graphs' memory to training between rollouts; null: where training has no room beside what "
                + "a batch needs of them (fledge plan says which).")
        blockSize = section.int(
            "block_size", default: 16, in: 16...1024, doc: "Tokens of a block of the cache; a power of two.")
        kvCacheDType = section.choice(
            "kv_cache_dtype", default: .auto,
            doc:
                "The type of cached keys and values; auto is model.dtype. fp8_e4m3 halves bfloat16's bytes: sampling sees "
                + "rounded keys and values, the trainer does not.")
        preemption = section.choice(
            "preemption", default: .recompute,
            doc: "What becomes of a response that must yield its blocks: computed again later, or kept in host memory.")
        swapSpace = section.number(
            "swap_space", default: 4, in: .nonNegative, doc: "GiB of host memory for preemption: swap.")
        quantization = section.choice(
            "quantization", default: .none,
            doc: "Sample from rounded weights: int8 by channel, int4 in groups of 128; the trainer's stay as they are.")
    }
}

/// `rollout.speculative`.
public struct SpeculativeSettings: Hashable, Sendable {
    public enum Method: String, CaseIterable, Hashable, Sendable, SettingWord {
        case none, ngram
    }

    public let method: Method
    public let numSpeculativeTokens: Int
    public let promptLookupMax: Int
    public let promptLookupMin: Int

    init(_ section: inout SectionReader) {
        method = section.choice(
            "method", default: .none,
            doc:
                "ngram guesses what followed the last tokens where they stood before; what is sampled stays as distributed."
        )
        numSpeculativeTokens = section.int(
            "num_speculative_tokens", default: 4, in: 1...64, doc: "Tokens guessed at a time.")
        promptLookupMax = section.int(
            "prompt_lookup_max", default: 4, in: 1...64, doc: "The most last tokens that are looked up.")
        promptLookupMin = section.int(
            "prompt_lookup_min", default: 2, in: 1...64, doc: "The fewest; below that nothing is guessed.")
    }
}
