public import TensorCore

/// A weight that is multiplied with, and, between weight updates, its copy for sampling: in the CPU kernels' own layout, or
/// quantised. Decoding goes through the weights once a token, so there a copy pays; training never sees it. An adapter may hang on
/// it.
public final class Projection {
    /// What stands in for the weight while no gradients are recorded.
    private enum Copy {
        case packed(PackedLinear)
        /// Only where ``samplesQuantized`` is on: its products are not the weight's.
        case quantized(QuantizedLinear)
    }

    public let weight: Tensor
    public let bias: Tensor?
    /// Of a row-parallel projection: added once to the sum of the ranks' products, by whoever forms it.
    var biasOfSum: Tensor?
    /// Rows that other tensor ranks hold too.
    var copied: CopiedRows?
    /// The parameter that `weight` is; nil when it is none.
    public let parameter: Parameter?
    private var copy: Copy?
    /// Whether `copy` holds the adapter's product as well.
    private var copyHoldsAdapter = false
    /// Whether a quantised copy is used: ``SequenceModel/samplingQuantized(_:)``.
    var samplesQuantized = false
    var adapter: ProjectionAdapter?
    /// The weight as it was before ``merge()``.
    private var base: Tensor?

    public init(weight: Tensor, bias: Tensor? = nil, parameter: Parameter? = nil) {
        self.weight = weight
        self.bias = bias
        self.parameter = parameter
    }

    /// `x · weightᵀ + bias`, and the adapter's part where there is one.
    ///
    /// - Parameters:
    ///   - kept: what a checkpoint around the layer may keep the product as.
    ///   - isRead: false where only the gradients' way through the product is wanted, not its value.
    public func callAsFunction(
        _ x: Tensor, kept: KeptActivations = [], isRead: Bool = true
    ) throws(TorchError) -> Tensor {
        let active = adapter.flatMap { $0.lora.isEnabled && base == nil ? $0 : nil }
        let product: Tensor
        if let copied = try copiedProduct(x, beside: active) {
            product = copied
            if copyHoldsAdapter { return product }
        } else {
            product = try plainProduct(x, kept: kept, isRead: isRead)
        }
        return try active?.added(to: product, input: x) ?? product
    }

    private func plainProduct(
        _ x: Tensor, kept: KeptActivations, isRead: Bool
    ) throws(TorchError) -> Tensor {
        guard let copied else { return try x.linear(weight, bias: bias, kept: kept, isRead: isRead) }
        guard isGradEnabled else { return try x.linear(weight, bias: bias) }
        return try x.linear(weight, bias: bias, rowsFrom: copied.first, heldBy: copied.copies, of: copied.group)
    }

    /// Whether the value of an input decides anything besides this weight's gradient when the product is not read.
    var readsInputAnyway: Bool { adapter.map { $0.lora.isEnabled } ?? false }

    /// The copy's product; nil where there is none, or it must not be used now.
    private func copiedProduct(_ x: Tensor, beside active: ProjectionAdapter?) throws(TorchError) -> Tensor? {
        guard let copy, !isGradEnabled, !copyHoldsAdapter || active != nil else { return nil }
        switch copy {
        case .packed(let packed): return try packed(x, bias: bias)
        case .quantized(let quantized): return samplesQuantized ? try quantized(x, bias: bias) : nil
        }
    }

    /// Copies the weight as it is now for inference at about `rows` rows.
    /// - Parameter merging: with the adapter's product added, rounded to the weight's type: faster to decode with, and in
    ///   bfloat16 not quite what training computes. The weight itself is not touched.
    func pack(rows: Int, merging: Bool = false) throws(TorchError) {
        guard weight.device == .cpu, [.float32, .bfloat16].contains(weight.dtype) else { return }
        unpack()
        let source = try copySource(merging)
        copy = .packed(try PackedLinear(source, rows: rows))
    }

    /// Rounds the weight as it is now, for sampling.
    /// - Parameter merging: with the adapter's product added before; else that is computed beside it, in full precision.
    func quantize(_ scheme: WeightQuantization, merging: Bool = false) throws(TorchError) {
        unpack()
        let source = try copySource(merging)
        copy = .quantized(try QuantizedLinear(source, scheme))
    }

    /// What is copied; sets ``copyHoldsAdapter``.
    private func copySource(_ merging: Bool) throws(TorchError) -> Tensor {
        guard merging, adapter != nil, base == nil else { return weight }
        let sum = try merged()
        copyHoldsAdapter = true
        return sum
    }

    /// Forgets the copy: the weight has changed, or its memory is wanted.
    func unpack() {
        copy = nil
        copyHoldsAdapter = false
    }

    var isPacked: Bool { copy != nil }
    /// What the copy takes.
    var copyBytes: Int {
        switch copy {
        case nil: 0
        case .packed?: weight.byteCount
        case .quantized(let quantized)?: quantized.byteCount
        }
    }
    /// The quantised copy.
    var quantized: QuantizedLinear? { if case .quantized(let quantized)? = copy { quantized } else { nil } }

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
