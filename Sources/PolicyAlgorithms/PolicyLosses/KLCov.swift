internal import TensorCore

/// KL-Cov (Cui et al. 2025): the plain policy-gradient ratio loss, with an added penalty |log π − log π_old| on the share of tokens
/// whose advantage and log-probability covary the most.
///
/// Fitted to a batch, the means and the covariance from which tokens are held back are that batch's; else those of the call.
///
/// Source: verl `core_algos.compute_policy_loss_kl_cov`.
public struct KLCovLoss: PolicyLoss {
    /// The pull towards the old policy acts without advantages too.
    public var vanishesWithoutAdvantage: Bool { false }
    public var needsWholeBatch: Bool { true }
    public var settings: PolicyLossSettings
    private var cut: Cut?
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    private struct Cut: Sendable, Hashable {
        let covariance: TokenCovariance
        /// The least covariance that is held back, and of the tokens that have just this one the highest hash.
        let least: Double, highest: UInt64
    }

    public func fitted(to batch: PolicyLossArguments) throws -> any PolicyLoss {
        var copy = self
        copy.cut = try withNoGrad { try findCut(batch) }
        return copy
    }

    private func findCut(_ batch: PolicyLossArguments) throws -> Cut {
        guard settings.klCovRatio > 0, settings.klCovRatio <= 1 else {
            throw AlgorithmError(
                .badSetting, "kl_cov",
                "policy_loss.kl_cov_ratio is \(settings.klCovRatio); give a number above 0, up to 1")
        }
        let covariance = try TokenCovariance(of: batch)
        let tokens = try batch.responseMask.greater(than: 0).to(dtype: .int64).sum().itemInt()
        guard tokens > 0 else { return Cut(covariance: covariance, least: .infinity, highest: 0) }
        let count = min(tokens, max(1, Int(Double(tokens) * settings.klCovRatio)))
        let values = try covariance(batch)
        let least = try values.flattened().topK(count, dim: 0).values.min().item()
        // A batch of equal advantages has nothing but ties, all of which would be too many; one with a NaN has none.
        let above = try values.greater(than: least).to(dtype: .int64).sum().itemInt()
        let ties = try TokenHash.all(batch, where: values.equal(to: least)).map(\.hash).sorted()
        return Cut(
            covariance: covariance, least: least, highest: count - above <= ties.count ? ties[count - above - 1] : 0)
    }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let logRatio = try arguments.logProbs.subtracting(arguments.oldLogProbs)
        let plain = try logRatio.exp().multiplied(by: arguments.advantages).negated()
        let isHeld = try withNoGrad {
            let cut = try cut ?? findCut(arguments)
            let covariance = try cut.covariance(arguments)
            let ties = try TokenHash.all(arguments, where: covariance.equal(to: cut.least))
                .filter { $0.hash <= cut.highest }
            return try covariance.greater(than: cut.least)
                .logicalOr(TokenHash.marks(ties, like: covariance).greater(than: 0))
        }
        let held = try plain.adding(logRatio.abs().multiplied(by: settings.klCovCoefficient))
        return try arguments.result(isHeld.select(held, else: plain)) {
            [("actor/ppo_kl", try arguments.share(logRatio.abs()))]
        }
    }
}
