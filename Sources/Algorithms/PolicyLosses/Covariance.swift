internal import TensorCore

/// The covariance of advantage and log-probability, token by token, about the means of the whole batch that one optimizer step
/// sees (Cui et al. 2025, "The Entropy Mechanism of RL for Reasoning Language Models").
struct TokenCovariance: Sendable, Hashable {
    let meanAdvantage, meanLogProb: Double

    /// Means over a batch's tokens; log-probabilities are those at hand.
    init(of batch: PolicyLossArguments) throws(TorchError) {
        meanAdvantage = try Masked.mean(batch.advantages, batch.responseMask).item()
        meanLogProb = try Masked.mean(batch.logProbs.detached(), batch.responseMask).item()
    }

    /// `[B, L]`, −∞ outside the mask; no gradient.
    func callAsFunction(_ arguments: PolicyLossArguments) throws(TorchError) -> Tensor {
        let covariance = try arguments.advantages.subtracting(meanAdvantage)
            .multiplied(by: arguments.logProbs.detached().subtracting(meanLogProb))
        return try covariance.maskedFill(arguments.responseMask.lessOrEqual(to: 0), -.infinity)
    }
}
