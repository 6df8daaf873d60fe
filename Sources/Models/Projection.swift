public import TensorCore

/// A weight that is multiplied with, and, between weight updates on the CPU, its copy in the kernels' own layout. Decoding goes
/// through the weights once a token, so there the layout pays; training never sees the copy. An adapter may hang on it.
public final class Projection {
    public let weight: Tensor
    public let bias: Tensor?
    /// The parameter that `weight` is; nil when it is none.
    public let parameter: Parameter?
    private var packed: PackedLinear?
    /// Whether `packed` holds the adapter's product as well.
    private var packedHoldsAdapter = false
    var adapter: ProjectionAdapter?
    /// The weight as it was before ``merge()``.
    private var base: Tensor?

    public init(weight: Tensor, bias: Tensor? = nil, parameter: Parameter? = nil) {
        self.weight = weight
        self.bias = bias
        self.parameter = parameter
    }

    /// `x · weightᵀ + bias`, and the adapter's part where there is one.
    public func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor {
        let active = adapter.flatMap { $0.lora.isEnabled && base == nil ? $0 : nil }
        let product: Tensor
        if let packed, !isGradEnabled, !packedHoldsAdapter || active != nil {
            product = try packed(x, bias: bias)
            if packedHoldsAdapter { return product }
        } else {
            product = try x.linear(weight, bias: bias)
        }
        return try active?.added(to: product, input: x) ?? product
    }

    /// Copies the weight as it is now for inference at about `rows` rows.
    /// - Parameter merging: with the adapter's product added, rounded to the weight's type: faster to decode with, and in
    ///   bfloat16 not quite what training computes. The weight itself is not touched.
    func pack(rows: Int, merging: Bool = false) throws(TorchError) {
        guard weight.device == .cpu, [.float32, .bfloat16].contains(weight.dtype) else { return }
        packedHoldsAdapter = merging && adapter != nil && base == nil
        packed = try PackedLinear(packedHoldsAdapter ? merged() : weight, rows: rows)
    }

    /// Forgets the copy: the weight has changed, or its memory is wanted.
    func unpack() {
        packed = nil
        packedHoldsAdapter = false
    }

    var isPacked: Bool { packed != nil }

    // MARK: - Merging

    /// The weight with the adapter's product added in float32; the weight itself where there is no adapter, or it is merged.
    func merged() throws(TorchError) -> Tensor {
        guard let adapter, base == nil else { return weight }
        return try adapter.merged(into: weight)
    }

    /// Folds the adapter into the weight, keeping a copy of what was there: a sum in floating point cannot be taken back exactly.
    func merge() throws(TorchError) {
        guard adapter != nil, base == nil else { return }
        let sum = try merged()
        base = try weight.detached().cloned()
        try withNoGrad { () throws(TorchError) in try weight.copy(from: sum) }
        unpack()
    }

    /// Puts the weight's own bits back.
    func unmerge() throws(TorchError) {
        guard let base else { return }
        try withNoGrad { () throws(TorchError) in try weight.copy(from: base) }
        self.base = nil
        unpack()
    }
}
