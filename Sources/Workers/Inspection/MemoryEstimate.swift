import Models
public import TensorCore

/// Bytes that one way of using a model takes on one device, by what they are for.
///
/// P parameters of w bytes (2 in bfloat16, 4 in float32), L layers, hidden size C, T tokens of a micro-batch, n sequences of
/// S tokens each, K elements of keys and values of a token in a layer (`2·heads·headDim`; for latent attention the latent):
/// - weights `P·w`; cache `n·S·L·K·w`;
/// - full training: weights, and for each parameter a float32 master (in bfloat16 only), two float32 moments and the gradient
///   (in bfloat16 also the float32 sum): 20 bytes a parameter in bfloat16 and 16 in float32, as `docs/training.md` counts;
/// - LoRA of rank r: weights `P·w`, and the same 20 or 16 bytes for each of `r·(in+out)` adapter parameters;
/// - activations with full checkpointing, as plans count them (``PassBytes``): the layers' inputs `T·L·C·w`, the final norm's `2·T·C·w`,
///   and what is more of one layer run again and a GPU's chunk of logits;
/// - GRPO: a rollout's cache beside what training holds, and `P·w` more for a reference model.
public struct MemoryEstimate: Sendable {
    /// What the estimate is of.
    public struct Workload: Sendable, Hashable {
        /// Tokens of a sequence.
        public var tokens = 2048
        /// Sequences that are sampled at once.
        public var sequences = 64
        /// Tokens of a training micro-batch.
        public var microBatchTokens = 8192
        public var rank = 16
        public init() {}
    }

    /// Such as "grpo, full".
    public let method: String
    public let dtype: DType
    public let parts: [(name: String, bytes: Int)]
    public var total: Int { parts.reduce(0) { $0 &+ $1.bytes } }

    /// The estimates of every method, in bfloat16 and float32.
    /// - Parameter adapterRows: the sum of inputs and outputs over the projections of attention and feed-forward layers.
    static func all(
        parameters: Int, shape: ModelInspection.Shape, adapterRows: Int, workload: Workload
    ) -> [MemoryEstimate] {
        [DType.bfloat16, .float32].flatMap { dtype -> [MemoryEstimate] in
            let width = dtype.size
            let weights = (name: "weights", bytes: parameters &* width)
            let cache = (
                name: "cache",
                bytes: product(workload.sequences, workload.tokens, shape.layers, shape.cacheWidth, width)
            )
            let state = dtype == .bfloat16 ? 18 : 12
            let full = (name: "optimizer and gradients", bytes: product(parameters, state))
            let adapters = (name: "adapters", bytes: product(workload.rank, adapterRows, state + width))
            let activations = (name: "activations", bytes: activations(shape, workload, dtype))
            let reference = (name: "reference", bytes: weights.bytes)
            func estimate(_ method: String, _ parts: (name: String, bytes: Int)...) -> MemoryEstimate {
                MemoryEstimate(method: method, dtype: dtype, parts: parts)
            }
            return [
                estimate("inference", weights, cache),
                estimate("sft, full", weights, full, activations),
                estimate("sft, lora", weights, adapters, activations),
                estimate("grpo, full", weights, full, activations, cache),
                estimate("grpo, full, with reference", weights, full, activations, cache, reference),
                estimate("grpo, lora", weights, adapters, activations, cache),
            ]
        }
    }

    private static func activations(_ shape: ModelInspection.Shape, _ workload: Workload, _ dtype: DType) -> Int {
        // Beyond any model's, and small enough to multiply.
        func size(_ value: Int, _ most: Int = 1 << 20) -> Int { min(max(0, value), most) }
        var layer = ActivationBytes.Layer(
            hidden: size(shape.hidden), queryHeads: size(shape.queryHeads, 1 << 14),
            keyValueHeads: size(shape.keyValueHeads, 1 << 14), headDim: size(shape.headDim, 1 << 14),
            intermediate: shape.experts > 0 ? 0 : size(shape.intermediate))
        if shape.experts > 0 {
            (layer.experts, layer.expertsPerToken) = (
                size(shape.experts, 1 << 14), size(shape.expertsPerToken, 1 << 10)
            )
            layer.expertIntermediate = size(shape.intermediate)
        }
        let tokens = size(workload.microBatchTokens, 1 << 26)
        let passes = PassBytes(
            layer, vocabulary: size(shape.vocabulary, 1 << 26), dtype: dtype, checkpointing: .full, tokens: tokens,
            answers: tokens, isCUDA: true)
        return product(shape.layers, passes.kept(layer: 0)) &+ passes.last &+ max(passes.transient, passes.logits)
    }

    /// Sizes from a stranger's configuration may be absurd; an estimate never traps on them.
    private static func product(_ factors: Int...) -> Int {
        var result = 1
        for factor in factors {
            let (next, overflow) = result.multipliedReportingOverflow(by: factor)
            if overflow { return Int.max / 1024 }
            result = next
        }
        return result
    }
}
