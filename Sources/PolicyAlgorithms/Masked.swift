public import TensorCore

/// Sums and moments over the places where a 0/1 mask is 1, as verl's `torch_functional` has them.
public enum Masked {
    /// `values` where the mask is 1 and 0 elsewhere: a NaN outside the mask must not come in through 0 * NaN.
    public static func kept(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        try mask.greater(than: 0).select(values, else: Tensor.zeros([], dtype: values.dtype, device: values.device))
    }

    public static func sum(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        try kept(values, mask).sum()
    }

    /// Sum over the mask divided by its count (+ 1e-8).
    public static func mean(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        try sum(values, mask).divided(by: mask.sum().adding(1e-8))
    }

    /// The mean over the whole batch's tokens: additive over micro-batches where the totals are given.
    public static func share(
        _ values: Tensor, _ mask: Tensor, totals: LossAggregation.Totals
    ) throws(TorchError) -> Tensor {
        guard let tokens = totals.tokens else { return try mean(values, mask) }
        return try sum(values, mask).divided(by: Double(tokens))
    }

    /// Sums along the last dimension: `[.., L]` to `[..]`.
    public static func rowSum(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        try kept(values, mask).sum(-1)
    }

    /// Means along the last dimension, 0 for a row without tokens: `[.., L]` to `[..]`.
    public static func rowMean(_ values: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        try rowSum(values, mask).divided(by: mask.sum(-1).adding(1e-8))
    }

    /// Variance over the masked places, with Bessel's correction where `unbiased`.
    ///
    /// - Throws: ``AlgorithmError`` (`tooFew`) for an unbiased variance of fewer than two places.
    public static func variance(_ values: Tensor, _ mask: Tensor, unbiased: Bool = true) throws -> Tensor {
        let biased = try mean(values.subtracting(mean(values, mask)).squared(), mask)
        guard unbiased else { return biased }
        let count = try mask.sum().item()
        guard count > 1 else {
            throw AlgorithmError(
                .tooFew, "whiten", "an unbiased variance needs 2 tokens, the mask has \(Int(count)); use a larger batch"
            )
        }
        return try biased.multiplied(by: count / (count - 1))
    }

    /// `values` with the mask's mean taken away (unless `keepsMean`) and divided by its deviation; places outside the mask are
    /// shifted and scaled too. Source: verl `torch_functional.masked_whiten`.
    public static func whitened(_ values: Tensor, _ mask: Tensor, keepsMean: Bool = false) throws -> Tensor {
        let mean = try mean(values, mask)
        let scale = try variance(values, mask).adding(1e-8).rsqrt()
        let whitened = try values.subtracting(mean).multiplied(by: scale)
        return keepsMean ? try whitened.adding(mean) : whitened
    }
}
