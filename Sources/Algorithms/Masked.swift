public import TensorCore

/// Sums and means over the places where a 0/1 mask is 1, as verl's `torch_functional` has them.
public enum Masked {
    public static func sum(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        // A NaN outside the mask must not come in through 0 * NaN.
        try mask.greater(than: 0).select(values, else: Tensor.zeros([], dtype: values.dtype, device: values.device))
            .sum()
    }

    /// Sum over the mask divided by its count (+ 1e-8).
    public static func mean(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        try sum(values, mask).divided(by: mask.sum().adding(1e-8))
    }
}
