public import Config
import RolloutCore
import RolloutEngine
import TensorCore

/// How a policy worker's engine computes, whatever it samples.
public struct RolloutEngineSettings: Sendable, Hashable {
    public enum Preemption: Sendable, Hashable {
        case recompute
        /// Into host memory of so many bytes.
        case swap(bytes: Int)
    }

    public enum Quantization: Sendable, Hashable { case int8, int4 }

    /// n-gram prompt lookup.
    public struct Speculation: Sendable, Hashable {
        /// Tokens guessed at a time.
        public var tokens: Int
        /// Last tokens that are looked up.
        public var lookup: ClosedRange<Int>
        public init(tokens: Int, lookup: ClosedRange<Int>) {
            self.tokens = tokens
            self.lookup = lookup
        }
    }

    /// The share of the device's free memory that the cache may take.
    public var memoryFraction = 0.5
    /// Tokens of one step, decoded ones and prompts' together.
    public var maxStepTokens = 8192
    /// Sequences that decode at a time.
    public var maxRows = 256
    /// The most prompt tokens of one sequence in a step; nil: a prompt is never cut.
    public var prefillChunk: Int? = .max
    public var prefixCaching = true
    public var usesGraphs = true
    /// Whether cache and graphs are freed between rollouts; nil: where training has no room beside them.
    public var freesCacheBetween: Bool?
    /// Tokens of a cache block.
    public var blockSize = 16
    public var preemption = Preemption.recompute
    public var quantization: Quantization?
    /// Whether keys and values are stored in float8e4m3, not the model's type.
    public var cachesInFloat8 = false
    public var speculation: Speculation?

    public init() {}

    public init(_ rollout: RolloutSettings) {
        let engine = rollout.engine
        memoryFraction = engine.gpuMemoryUtilization
        maxStepTokens = engine.maxNumBatchedTokens
        maxRows = engine.maxNumSeqs
        prefillChunk = engine.enableChunkedPrefill ? .max : nil
        prefixCaching = engine.enablePrefixCaching
        usesGraphs = !engine.enforceEager
        freesCacheBetween = engine.freeCacheEngine
        blockSize = engine.blockSize
        preemption =
            switch engine.preemption {
            case .recompute: .recompute
            case .swap: .swap(bytes: Int(engine.swapSpace * 0x1p30))
            }
        quantization =
            switch engine.quantization {
            case .none: nil
            case .int8: .int8
            case .int4: .int4
            }
        cachesInFloat8 = engine.kvCacheDType == .float8
        if rollout.speculative.method == .ngram {
            let speculative = rollout.speculative
            speculation = Speculation(
                tokens: speculative.numSpeculativeTokens,
                lookup: speculative.promptLookupMin...speculative.promptLookupMax)
        }
    }

    /// What of this the engine is made with. The one place that knows both.
    func options(mergesAdapter: Bool) -> RolloutEngine.Options {
        RolloutEngine.Options(
            maxRows: maxRows, maxStepTokens: maxStepTokens, prefillChunk: prefillChunk == .max ? nil : prefillChunk,
            cutsPrompts: prefillChunk != nil, blockSize: blockSize, prefixCaching: prefixCaching,
            usesGraphs: usesGraphs,
            memoryFraction: memoryFraction,
            preemption: {
                switch preemption {
                case .recompute: .recompute
                case .swap(let bytes): .swap(bytes: bytes)
                }
            }(), mergesAdapter: mergesAdapter,
            quantization: quantization.map {
                switch $0 {
                case .int8: .int8PerChannel
                case .int4: .int4(group: 128)
                }
            },
            cacheDType: cachesInFloat8 ? .float8e4m3 : nil,
            speculation: speculation.map {
                RolloutCore.Speculation(
                    maxDraft: $0.tokens, minNgram: $0.lookup.lowerBound, maxNgram: $0.lookup.upperBound)
            })
    }

    /// Settings that change what is sampled or in which numbers, and that the engine does not heed yet: better refused than
    /// taken and forgotten.
    /// - Throws: ``WorkerError`` `badSetting`.
    static func refuseUnheeded(_ config: RunConfig) throws {
        let unheeded: [(name: String, isSet: Bool)] = [
            (
                "rollout.kv_cache_dtype",
                config.rollout.engine.kvCacheDType == .bfloat16 && config.model.dtype != .bfloat16
            )
        ]
        if let first = unheeded.first(where: \.isSet) {
            throw WorkerError(.badSetting, "\(first.name): is not done yet; leave it out")
        }
    }
}
