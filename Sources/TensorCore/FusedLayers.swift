internal import CTorch

/// A root mean square norm (Zhang & Sennrich 2019): `x / rms(x) * weight` over the last dimension, in float32 inside.
public struct RMSNormTerms {
    /// `[C]`, of x's type or float32.
    public let weight: Tensor
    public let eps: Double
    /// Whether the weight is stored less one, and multiplied with in float32 (Gemma).
    public let hasUnitOffset: Bool

    public init(weight: Tensor, eps: Double, hasUnitOffset: Bool = false) {
        self.weight = weight
        self.eps = eps
        self.hasUnitOffset = hasUnitOffset
    }

    fileprivate var raw: ct_norm { ct_norm(weight: weight.raw, eps: eps, unit_offset: hasUnitOffset) }
}

extension RMSNormTerms? {
    fileprivate var raw: ct_norm { self?.raw ?? ct_norm(weight: nil, eps: 0, unit_offset: false) }
}

/// The activations that are fused with the product that follows them.
public enum GateActivation: Sendable, Hashable {
    case silu, gelu, geluTanh

    fileprivate var raw: ct_gate {
        switch self {
        case .silu: ct_gate_silu
        case .gelu: ct_gate_gelu
        case .geluTanh: ct_gate_gelu_tanh
        }
    }
}

/// What is done to the queries, keys and values of one projection before attention.
public struct HeadPreparation {
    public var queryHeads, keyValueHeads, headDim: Int
    /// float32 `[T, R/2]` each: the first R dimensions of queries and keys are rotated; nil: none.
    public var angles: (cos: Tensor, sin: Tensor)?
    /// Norms over each head, both or neither, taken before the rotation.
    public var norms: (query: RMSNormTerms, key: RMSNormTerms)?

    public init(
        queryHeads: Int, keyValueHeads: Int, headDim: Int, angles: (cos: Tensor, sin: Tensor)? = nil,
        norms: (query: RMSNormTerms, key: RMSNormTerms)? = nil
    ) {
        self.queryHeads = queryHeads
        self.keyValueHeads = keyValueHeads
        self.headDim = headDim
        self.angles = angles
        self.norms = norms
    }

    fileprivate var rotatedDim: Int { angles.map { 2 * $0.cos.size(1) } ?? 0 }
}

/// Pools `[S, Hk, D]` of keys and of values, and the slot of each token, int32 `[T]`; a negative one takes nothing.
public typealias KeyValueSlots = (keys: Tensor, values: Tensor, slots: Tensor)

extension Tensor {
    /// ``linear(_:bias:)`` as a layer's part.
    ///
    /// - Parameters:
    ///   - kept: what a checkpoint around the layer may keep the product as.
    ///   - isRead: false where only the gradients' way through the product is wanted, not its value.
    public func linear(
        _ weight: Tensor, bias: Tensor?, kept: KeptActivations, isRead: Bool = true
    ) throws(TorchError) -> Tensor {
        try tensor("linear", [self, weight]) {
            ct_layer_linear(raw, weight.raw, bias?.raw, kept.raw, isRead, $0, $1)
        }
    }

    /// `x / rms(x) * weight` over the last dimension, of x's type.
    public func rmsNorm(_ norm: RMSNormTerms) throws(TorchError) -> Tensor {
        try tensor("rmsNorm", [self, norm.weight]) { ct_rms_norm(raw, norm.raw, $0, $1) }
    }

    /// The same. The weight is of x's type or float32.
    public func rmsNorm(_ weight: Tensor, eps: Double) throws(TorchError) -> Tensor {
        try rmsNorm(RMSNormTerms(weight: weight, eps: eps))
    }

    /// `self + multiplier * deltaNorm(delta)`, rounded to this tensor's type after each step.
    ///
    /// - Parameter isRead: false where only the gradients' way through the sum is wanted, not its value.
    public func adding(
        _ delta: Tensor, norm deltaNorm: RMSNormTerms?, multiplier: Double = 1, isRead: Bool = true
    ) throws(TorchError) -> Tensor {
        try tensor("residual sum", [self, delta]) { out, error in
            var normed: ct_tensor?
            return ct_residual_norm(
                raw, delta.raw, deltaNorm.raw, multiplier, RMSNormTerms?.none.raw, true, isRead, out, &normed, error)
        }
    }

    /// The sum as above, and `norm` of it, read and written once where there is a kernel for it. Without delta the sum is this
    /// tensor; going on with the one that is given makes the gradients of both uses meet in one pass.
    ///
    /// - Parameter keepsSum: false where nobody wants the sum itself.
    public func addingThenNorming(
        _ delta: Tensor?, norm deltaNorm: RMSNormTerms? = nil, multiplier: Double = 1, by norm: RMSNormTerms,
        keepsSum: Bool = true
    ) throws(TorchError) -> (sum: Tensor?, normed: Tensor) {
        var sum: ct_tensor?
        let normed = try tensor("residual norm", [self, delta, norm.weight].compactMap { $0 }) {
            ct_residual_norm(
                raw, delta?.raw, deltaNorm.raw, multiplier, norm.raw, keepsSum, true, &sum, $0, $1)
        }
        return (sum.map { Tensor(owning: $0) }, normed)
    }

    /// `activation(gate) * up` for `self [.., 2I]` that holds gate, then up.
    ///
    /// - Parameter isRead: false where only the gradients' way through it is wanted, not its value.
    public func gated(_ activation: GateActivation, isRead: Bool = true) throws(TorchError) -> Tensor {
        try tensor("gated \(activation)", [self]) { ct_gated_activation(raw, activation.raw, isRead, $0, $1) }
    }

    /// `silu(gate) * up`.
    public func siluMultiply() throws(TorchError) -> Tensor { try gated(.silu) }

    /// cos and sin, float32 `[T, N]`, of `self` (positions, int64 or int32 `[T]`) times `frequencies`, float32 `[1, N]` or `[T, N]`; both
    /// times `factor`.
    public func rotaryAngles(
        _ frequencies: Tensor, factor: Double = 1
    ) throws(TorchError) -> (cos: Tensor, sin: Tensor) {
        var sin: ct_tensor?
        let cos = try tensor("rotaryAngles", [self, frequencies]) {
            ct_rotary_angles(raw, frequencies.raw, factor, $0, &sin, $1)
        }
        guard let sin else { preconditionFailure("rotaryAngles gave no sines") }
        return (cos, Tensor(owning: sin))
    }

    // MARK: - Heads

    /// Whether ``preparedHeads(_:storing:)`` is one kernel here that stores and overwrites: on CUDA, no gradients recorded, sizes in
    /// sixteens.
    public func hasHeadKernel(_ how: HeadPreparation, keys: Tensor? = nil, values: Tensor? = nil) -> Bool {
        ct_has_rotary_store(raw, Int32(how.headDim), Int32(how.rotatedDim), keys?.raw, values?.raw)
    }

    /// Queries `[T, Hq, D]`, keys and values `[T, Hk, D]` of `self [T, (Hq + 2 Hk) D]`, ready for attention; stored in the pools
    /// where there are some. Where ``hasHeadKernel(_:keys:values:)`` says so, and where gradients are recorded, this tensor may be
    /// overwritten and the results be views of it.
    public func preparedHeads(
        _ how: HeadPreparation, storing target: KeyValueSlots? = nil
    ) throws(TorchError) -> (query: Tensor, key: Tensor, value: Tensor) {
        let hq = how.queryHeads, hk = how.keyValueHeads
        if target == nil, isGradEnabled || ct_is_checkpointing(), let parts = try layerHeads(how) { return parts }
        func part(_ heads: Range<Int>) throws(TorchError) -> Tensor {
            try reshaped([size(0), hq + 2 * hk, how.headDim]).narrowed(1, heads)
        }
        if hasHeadKernel(how, keys: target?.keys, values: target?.values) {
            try check("preparedHeads", [self]) {
                ct_rotary_store_(
                    raw, Int32(hq), Int32(hk), Int32(how.headDim), how.angles?.cos.raw, how.angles?.sin.raw,
                    (how.norms?.query).raw, (how.norms?.key).raw, target?.keys.raw, target?.values.raw,
                    target?.slots.raw, $0)
            }
            return (try part(0..<hq), try part(hq..<hq + hk), try part(hq + hk..<hq + 2 * hk))
        }
        let query = try part(0..<hq).prepared(how.norms?.query, how.angles)
        let key = try part(hq..<hq + hk).prepared(how.norms?.key, how.angles)
        let value = try part(hq + hk..<hq + 2 * hk)
        if let target {
            let kept = try target.slots.greaterOrEqual(to: 0).nonZero().reshaped([-1])
            let slots = try target.slots.indexSelect(0, kept).to(dtype: .int64)
            try target.keys.storeRows(slots, key.indexSelect(0, kept))
            try target.values.storeRows(slots, value.indexSelect(0, kept))
        }
        return (query, key, value)
    }

    /// The same as a step of training that keeps no more than it must; nil where its kernels do not take these sizes.
    private func layerHeads(
        _ how: HeadPreparation
    ) throws(TorchError) -> (query: Tensor, key: Tensor, value: Tensor)? {
        var query: ct_tensor?
        var key: ct_tensor?
        var value: ct_tensor?
        try check("preparedHeads", [self]) {
            ct_prepare_heads(
                raw, Int32(how.queryHeads), Int32(how.keyValueHeads), Int32(how.headDim), how.angles?.cos.raw,
                how.angles?.sin.raw, (how.norms?.query).raw, (how.norms?.key).raw, &query, &key, &value, $0)
        }
        guard let query, let key, let value else { return nil }
        return (Tensor(owning: query), Tensor(owning: key), Tensor(owning: value))
    }

    /// Heads `[T, H, D]`, normed, then rotated.
    private func prepared(
        _ norm: RMSNormTerms?, _ angles: (cos: Tensor, sin: Tensor)?
    ) throws(TorchError) -> Tensor {
        let normed = try norm.map { norm throws(TorchError) in try rmsNorm(norm) } ?? self
        guard let angles else { return normed }
        return try normed.partlyRotary(cos: angles.cos, sin: angles.sin)
    }

    /// Rotary embedding of the first R dimensions of `self [T, H, D]` by `cos`, `sin [T, R/2]`; the others stay.
    public func partlyRotary(cos: Tensor, sin: Tensor) throws(TorchError) -> Tensor {
        let rotated = 2 * cos.size(1), whole = size(2)
        if rotated == whole { return try rotary(cos: cos, sin: sin) }
        return try Tensor.concatenate(
            [narrowed(2, 0..<rotated).rotary(cos: cos, sin: sin), narrowed(2, rotated..<whole)], dim: 2)
    }
}
