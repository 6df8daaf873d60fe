public import TensorCore

/// The critic's squared error, with the new value held within a range of the old one (Schulman et al.'s PPO code).
///
/// Source: verl `core_algos.compute_value_loss`.
public struct ValueLoss: Sendable, Hashable {
    /// How far a value may move from the old one (`cliprange_value`).
    public var clipRange: Double
    public init(clipRange: Double = 0.5) { self.clipRange = clipRange }

    public struct Result {
        public let loss: Tensor
        /// The share of tokens where the clip bites: of the whole batch where the totals are given, then additive.
        public let clipFraction: Tensor
    }

    /// - Parameters: predictions (trainable), oldValues, returns and mask float32 `[B, L]`.
    public func callAsFunction(
        predictions: Tensor, oldValues: Tensor, returns: Tensor, mask: Tensor, aggregation: LossAggregation,
        totals: LossAggregation.Totals = .init()
    ) throws(TorchError) -> Result {
        let clipped = try predictions.maximum(oldValues.subtracting(clipRange)).minimum(oldValues.adding(clipRange))
        let plainError = try predictions.subtracting(returns).squared()
        let clippedError = try clipped.subtracting(returns).squared()
        let loss = try aggregation(plainError.maximum(clippedError), mask: mask, totals: totals)
        let clipFraction = try withNoGrad { () throws(TorchError) in
            let isClipped = try clippedError.greater(than: plainError).to(dtype: .float32)
            return try Masked.share(isClipped, mask, totals: totals)
        }
        return Result(loss: try loss.multiplied(by: 0.5), clipFraction: clipFraction)
    }
}
