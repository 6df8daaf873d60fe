public import TensorCore

/// A preference loss with its metrics, detached scalars under TRL's names and over the rows of this call.
public struct PreferenceLossResult {
    public let loss: Tensor
    public let metrics: [(name: String, value: Tensor)]
}

/// What the losses on pairs of a chosen and a rejected answer share. Totals count pairs as sequences.
enum Pairs {
    /// The mean of `losses_B` over the whole batch's pairs or answers: additive over micro-batches where the totals are given.
    static func mean(_ losses_B: Tensor, _ totals: LossAggregation.Totals) throws(TorchError) -> Tensor {
        let count = totals.sequences ?? losses_B.count
        return try losses_B.sum().multiplied(by: Double(totals.ranks) / Double(max(1, count)))
    }

    /// −log σ(x), with the share `smoothing` of −log σ(−x) mixed in: `[B]`.
    static func logistic(_ x: Tensor, smoothing: Double = 0) throws(TorchError) -> Tensor {
        let kept = try x.logSigmoid().negated()
        guard smoothing != 0 else { return kept }
        let flipped = try x.negated().logSigmoid().negated()
        return try kept.multiplied(by: 1 - smoothing).adding(flipped.multiplied(by: smoothing))
    }

    /// The two halves of rows: chosen first.
    static func halves(_ rows: Tensor) throws(TorchError) -> (chosen: Tensor, rejected: Tensor) {
        let pairs = rows.size(0) / 2
        return (try rows.narrowed(0, 0..<pairs), try rows.narrowed(0, pairs..<2 * pairs))
    }

    /// Metrics of implicit rewards and log-probabilities, `[B]` each.
    static func metrics(
        rewards: (chosen: Tensor, rejected: Tensor), logProbs: (chosen: Tensor, rejected: Tensor)
    ) throws(TorchError) -> [(name: String, value: Tensor)] {
        [
            ("rewards/chosen", try rewards.chosen.mean()), ("rewards/rejected", try rewards.rejected.mean()),
            (
                "rewards/accuracies",
                try rewards.chosen.greater(than: rewards.rejected).to(dtype: .float32).mean()
            ),
            ("rewards/margins", try rewards.chosen.subtracting(rewards.rejected).mean()),
            ("logps/chosen", try logProbs.chosen.mean()), ("logps/rejected", try logProbs.rejected.mean()),
        ]
    }
}

extension TokenDistribution {
    /// The log-probability of each row's labels under logits one position before, summed or averaged over the labels that are not
    /// −100: `[B]`, with gradient.
    ///
    /// - Parameters: logits `[B, T, V]`; labels int64 `[B, T]`.
    public static func sequenceLogProbs(
        _ logits: Tensor, labels: Tensor, isAveraged: Bool
    ) throws(TorchError) -> Tensor {
        let length = labels.size(1)
        let wanted = try labels.narrowed(1, 1..<length)
        let isWanted = try wanted.notEqual(to: Double(SFTLoss.ignoredLabel))
        let mask = try isWanted.to(dtype: .float32)
        let tokens = try logProbs(
            logits.narrowed(1, 0..<length - 1), labels: wanted.maskedFill(isWanted.logicalNot(), 0))
        let sums = try Masked.rowSum(tokens, mask)
        return isAveraged ? try sums.divided(by: mask.sum(-1)) : sums
    }
}
