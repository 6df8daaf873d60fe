public import TensorCore

/// What a decoder layer leaves in memory between forward and backward, in bytes a token, by what it is. Per layer and token, with C
/// the hidden size, Q and K the widths of queries and of keys (= of values), H query heads, I the feed-forward size, w bytes a value:
///
/// | mode | kept |
/// |---|---|
/// | none | two residual sums `2·C·w`, queries, keys and values `(Q+2K)·w`, attention's result and log-sum-exps `Q·w + 4·H`, gate and up `2·I·w`; norms by head `(Q+K)·w` more, norms of what joins the stream `2·C·w` more |
/// | selective | the input `C·w`, and of attention, `(Q+2K)·w` and `2·I·w` what is asked for |
/// | full | the input `C·w` |
///
/// A mixture's layer has, in place of `2·I·w`, for each of the k experts a token goes to `(2·I + 2·C)·w`, and the router's float32
/// probabilities. Backward goes through one checkpointed layer at a time, whose activations are then all there: ``transient``.
public struct ActivationBytes: Sendable, Hashable {
    /// The sizes of a layer that decide.
    public struct Layer: Sendable, Hashable {
        public var hidden, queryHeads, keyValueHeads, headDim: Int
        /// Of the dense feed-forward part, shared experts included; 0: there is none.
        public var intermediate: Int
        public var hasHeadNorms = false
        /// Whether what joins the residual stream is normed before (Gemma, OLMo 2).
        public var normsDeltas = false
        /// Experts, those a token goes to, and their feed-forward size.
        public var experts = 0, expertsPerToken = 0, expertIntermediate = 0

        public init(hidden: Int, queryHeads: Int, keyValueHeads: Int, headDim: Int, intermediate: Int) {
            self.hidden = hidden
            self.queryHeads = queryHeads
            self.keyValueHeads = keyValueHeads
            self.headDim = headDim
            self.intermediate = intermediate
        }

        var queryWidth: Int { queryHeads * headDim }
        var projectionWidth: Int { (queryHeads + 2 * keyValueHeads) * headDim }
    }

    /// Bytes a token.
    public var residual, queryKeyValue, attention, feedForward: Int

    public var total: Int { residual + queryKeyValue + attention + feedForward }

    /// What a layer keeps until backward reaches it.
    ///
    /// - Parameter dtype: the type that activations have.
    public init(_ layer: Layer, dtype: DType, mode: ActivationCheckpointing.Mode) {
        let w = dtype.size
        let kept: KeptActivations
        switch mode {
        case .none:
            residual = (layer.normsDeltas ? 4 : 2) * layer.hidden * w
            let prepared = layer.hasHeadNorms ? (layer.queryHeads + layer.keyValueHeads) * layer.headDim : 0
            queryKeyValue = (layer.projectionWidth + prepared) * w
            attention = layer.queryWidth * w + 4 * layer.queryHeads
            feedForward = Self.feedForward(layer, w)
            return
        case .selective(let kinds): kept = kinds
        case .full: kept = []
        }
        residual = layer.hidden * w
        queryKeyValue = kept.contains(.queryKeyValue) ? layer.projectionWidth * w : 0
        attention = kept.contains(.attention) ? layer.queryWidth * w + 4 * layer.queryHeads : 0
        feedForward = kept.contains(.gateUp) ? 2 * layer.intermediate * w : 0
    }

    /// Bytes a token of the one checkpointed layer that backward is in: its own activations, those that are not made again because
    /// they go at once (two norms' results), and with the gradients of gate and up the product's own gradient.
    public static func transient(_ layer: Layer, dtype: DType) -> Int {
        let w = dtype.size
        let all = ActivationBytes(layer, dtype: dtype, mode: .none).total
        let wide = max(layer.intermediate, layer.expertsPerToken * layer.expertIntermediate)
        return all + 3 * layer.hidden * w + 3 * wide * w
    }

    private static func feedForward(_ layer: Layer, _ w: Int) -> Int {
        let experts = layer.expertsPerToken * (2 * layer.expertIntermediate + 2 * layer.hidden) * w
        let router = layer.experts > 0 ? layer.experts * (w + 4) + layer.expertsPerToken * 28 : 0
        return 2 * layer.intermediate * w + experts + router
    }
}
