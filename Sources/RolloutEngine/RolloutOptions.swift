public import RolloutCore
public import TensorCore

extension RolloutEngine {
    public struct Options: Sendable, Hashable {
        public enum Preemption: Sendable, Hashable {
            /// What had to yield is computed again.
            case recompute
            /// It waits in this much host memory.
            case swap(bytes: Int)
        }
        /// Sequences that run at a time.
        public var maxRows: Int
        /// Tokens that one step computes, prompts' and decoding ones together.
        public var maxStepTokens: Int
        /// The most tokens of one prompt in a step; nil: as many as fit.
        public var prefillChunk: Int?
        /// Whether a prompt may be computed in several steps. Without, one longer than ``maxStepTokens`` is refused, and others
        /// wait for a step with room for them.
        public var cutsPrompts: Bool
        /// Tokens of a block of the cache, a power of two.
        public var blockSize: Int
        /// Whether prompts share what they begin with. The samples of one prompt always do.
        public var prefixCaching: Bool
        /// On CUDA, whether decoding steps are captured as graphs.
        public var usesGraphs: Bool
        /// Which share of the memory that is free on the device when the cache is made the cache and a step's activations may
        /// take.
        public var memoryFraction: Double
        /// Blocks of the cache; nil: as many as the requests need and memory allows.
        public var cacheBlocks: Int?
        public var preemption: Preemption
        /// Samples from weights with the model's adapter folded in: faster, and in bfloat16 rounded otherwise than in training.
        public var mergesAdapter: Bool
        /// Samples from copies of the weights rounded to few bits, made anew for every weight version; nil: from the weights.
        public var quantization: WeightQuantization?
        /// How keys and values are stored, float8e4m3 or the model's type; nil: the latter.
        public var cacheDType: DType?
        /// Several tokens a step where earlier text foretells them; what is drawn stays as distributed. nil: off.
        public var speculation: Speculation?

        public init(
            maxRows: Int = 256, maxStepTokens: Int = 8192, prefillChunk: Int? = nil, cutsPrompts: Bool = true,
            blockSize: Int = 16, prefixCaching: Bool = true, usesGraphs: Bool = true, memoryFraction: Double = 0.85,
            cacheBlocks: Int? = nil, preemption: Preemption = .recompute, mergesAdapter: Bool = false,
            quantization: WeightQuantization? = nil, cacheDType: DType? = nil, speculation: Speculation? = nil
        ) {
            self.maxRows = maxRows
            self.maxStepTokens = maxStepTokens
            self.prefillChunk = prefillChunk
            self.cutsPrompts = cutsPrompts
            self.blockSize = blockSize
            self.prefixCaching = prefixCaching
            self.usesGraphs = usesGraphs
            self.memoryFraction = memoryFraction
            self.cacheBlocks = cacheBlocks
            self.preemption = preemption
            self.mergesAdapter = mergesAdapter
            self.quantization = quantization
            self.cacheDType = cacheDType
            self.speculation = speculation
        }
    }
}
