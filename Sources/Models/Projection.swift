public import TensorCore

/// A weight that is multiplied with, and, between weight updates on the CPU, its copy in the kernels' own layout. Decoding goes
/// through the weights once a token, so there the layout pays; training never sees the copy.
public final class Projection {
    public let weight: Tensor
    public let bias: Tensor?
    private var packed: PackedLinear?

    public init(weight: Tensor, bias: Tensor? = nil) {
        self.weight = weight
        self.bias = bias
    }

    /// `x · weightᵀ + bias`.
    public func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor {
        if let packed, !isGradEnabled { return try packed(x, bias: bias) }
        return try x.linear(weight, bias: bias)
    }

    /// Copies the weight as it is now for inference at about `rows` rows.
    func pack(rows: Int) throws(TorchError) {
        guard weight.device == .cpu, [.float32, .bfloat16].contains(weight.dtype) else { return }
        packed = try PackedLinear(weight, rows: rows)
    }

    /// Forgets the copy: the weight has changed, or its memory is wanted.
    func unpack() { packed = nil }
}
