public import TensorCore

/// From a matrix of per-token losses `[B, L]` to one number. The normalisers count the whole batch that one optimizer step
/// sees, so that the loss of a micro-batch is its share and the shares add up, however the batch is split.
///
/// Source: verl `core_algos.agg_loss`.
public struct LossAggregation: Sendable, Hashable {
    public enum Mode: String, Sendable, Hashable, CaseIterable {
        /// Mean over all tokens (DAPO).
        case tokenMean = "token-mean"
        case tokenSum = "token-sum"
        /// Each sequence's sum, then the mean over sequences.
        case seqMeanTokenSum = "seq-mean-token-sum"
        /// Each sequence's mean, then the mean over sequences (GRPO's paper).
        case seqMeanTokenMean = "seq-mean-token-mean"
        /// Each sequence's sum over a constant, then the mean over sequences (Dr. GRPO).
        case seqMeanTokenSumNorm = "seq-mean-token-sum-norm"
    }

    public var mode: Mode
    /// The constant of `seq-mean-token-sum-norm`; by default the padded length of the whole batch.
    public var scaleFactor: Double?

    public init(_ mode: Mode, scaleFactor: Double? = nil) {
        self.mode = mode
        self.scaleFactor = scaleFactor
    }

    /// Counts of the whole batch; a nil one is taken from the mask given.
    public struct Totals: Sendable, Hashable {
        public var tokens, sequences: Int?
        /// Ranks over which gradients will be averaged: each rank's share is scaled up by it.
        public var ranks: Int
        public init(tokens: Int? = nil, sequences: Int? = nil, ranks: Int = 1) {
            self.tokens = tokens
            self.sequences = sequences
            self.ranks = ranks
        }
    }

    /// - Parameters: lossMatrix and mask `[B, L]`.
    public func callAsFunction(
        _ lossMatrix: Tensor, mask: Tensor, totals: Totals = Totals()
    ) throws(TorchError) -> Tensor {
        let ranks = Double(totals.ranks)
        switch mode {
        case .tokenMean:
            let sum = try Masked.sum(lossMatrix, mask)
            guard let tokens = totals.tokens else { return try sum.divided(by: mask.sum()).multiplied(by: ranks) }
            return try sum.divided(by: Double(tokens)).multiplied(by: ranks)
        case .tokenSum:
            return try Masked.sum(lossMatrix, mask).multiplied(by: ranks)
        case .seqMeanTokenSum, .seqMeanTokenMean, .seqMeanTokenSumNorm:
            let zero = try Tensor.zeros([], dtype: lossMatrix.dtype, device: lossMatrix.device)
            let present = try mask.greater(than: 0)
            let lengths_B = try mask.sum(-1)
            // A row without tokens is no sequence: it adds nothing and does not count.
            let isSequence_B = try lengths_B.greater(than: 0).to(dtype: .float32)
            var sums_B = try present.select(lossMatrix, else: zero).sum(-1)
            if mode == .seqMeanTokenMean { sums_B = try sums_B.divided(by: lengths_B.adding(1e-8)) }
            let total = try sums_B.multiplied(by: isSequence_B).sum()
            let mean =
                if let sequences = totals.sequences { try total.divided(by: Double(sequences)) } else {
                    try total.divided(by: isSequence_B.sum())
                }
            let scaled = try mean.multiplied(by: ranks)
            guard mode == .seqMeanTokenSumNorm else { return scaled }
            return try scaled.divided(by: scaleFactor ?? Double(mask.size(-1)))
        }
    }
}
