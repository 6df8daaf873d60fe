internal import CTorch

/// How one layer's queries see keys: the same for training, prefill and decoding.
public struct AttentionKind: Sendable, Hashable {
    /// Factor of the products of queries and keys.
    public var scale: Double
    /// Tokens that a query sees, itself included; nil: all before it. Counted along a segment's ancestors.
    public var window: Int?
    /// Scores become `cap * tanh(score / cap)` (Gemma 2); nil: they stay.
    public var softCap: Double?

    public init(scale: Double, window: Int? = nil, softCap: Double? = nil) {
        precondition(window ?? 1 > 0 && softCap ?? 1 > 0, "a window holds a token at least, and a soft cap is positive")
        self.scale = scale
        self.window = window
        self.softCap = softCap
    }

    var raw: ct_attention {
        ct_attention(scale: scale, soft_cap: softCap ?? 0, window: Int64(window ?? 0))
    }
}

/// What a model does to the products of its hidden states and output weights before they are logits.
public struct LogitsTransform: Sendable, Hashable {
    /// A positive factor.
    public var scale: Double
    /// Then logits become `cap * tanh(logit / cap)`; nil: they stay.
    public var softCap: Double?

    public init(scale: Double = 1, softCap: Double? = nil) {
        self.scale = scale
        self.softCap = softCap
    }

    public static let identity = LogitsTransform()

    /// Logits of `products [.., V]`; float32 unless nothing is to be done, as ``Tensor/tokenLogProbs(hidden:weight:targets:temperature:transform:chunk:)``
    /// computes them.
    public func callAsFunction(_ products: Tensor) throws(TorchError) -> Tensor {
        guard self != .identity else { return products }
        let wide = try products.to(dtype: .float32)
        guard let softCap else { return try wide.multiplied(by: scale) }
        return try wide.multiplied(by: scale / softCap).tanh().multiplied(by: softCap)
    }
}

extension Tensor {
    /// Rotary embedding of `self [T, H, D]` by `cos`, `sin [T, D/2]` (float32, contiguous), halves paired as Hugging Face's
    /// Llama does.
    public func rotary(cos: Tensor, sin: Tensor) throws(TorchError) -> Tensor {
        try tensor("rotary", [self, cos, sin]) { ct_rotary(raw, cos.raw, sin.raw, $0, $1) }
    }

    /// Dense attention: query `[B, Hq, Tq, D]`, key and value `[B, Hk, Tk, D]`; `mask` bool or additive.
    public static func attention(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor? = nil, causal: Bool = false, scale: Double,
        groupedQuery: Bool = false
    ) throws(TorchError) -> Tensor {
        try tensor("attention", [query, key, value]) {
            ct_sdpa(query.raw, key.raw, value.raw, mask?.raw, causal, scale, groupedQuery, $0, $1)
        }
    }

    /// `x Φ(x)` (Hendrycks & Gimpel 2016), or its approximation by tanh.
    public func gelu(tanhApproximation: Bool = false) throws(TorchError) -> Tensor {
        try tensor("gelu", [self]) { ct_gelu(raw, tanhApproximation, $0, $1) }
    }

    /// The same with nothing but a scale.
    public static func cachedAttention(
        query: Tensor, keyPool: Tensor, valuePool: Tensor, slots: Tensor, lengths: Tensor, scale: Double
    ) throws(TorchError) -> Tensor {
        try cachedAttention(
            query: query, keyPool: keyPool, valuePool: valuePool, slots: slots, lengths: lengths,
            kind: AttentionKind(scale: scale))
    }
}
