internal import TensorCore

/// Clip-Cov (Cui et al. 2025): PPO's clip, and a share of the tokens whose advantage and log-probability covary within a range lose
/// their gradient altogether.
///
/// verl picks among the candidates by a random permutation; here a hash of the token's position, old log-probability and advantage
/// orders them, so that the pick needs no generator and is the same however the batch is split. Fitted to a batch, the means, the
/// number to pick and the order's cut are that batch's; else those of the call.
///
/// Source: verl `core_algos.compute_policy_loss_clip_cov`.
public struct ClipCovLoss: PolicyLoss {
    public var needsWholeBatch: Bool { true }
    public var settings: PolicyLossSettings
    private var cut: Cut?
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    private struct Cut: Sendable, Hashable {
        let covariance: TokenCovariance
        /// Candidates with a hash up to this one are dropped.
        let highest: UInt64
    }

    public func fitted(to batch: PolicyLossArguments) throws -> any PolicyLoss {
        var copy = self
        copy.cut = try withNoGrad {
            let (plain, clipped) = try settings.clippedObjectives(ratio: ratio(batch), batch.advantages)
            return try findCut(batch, isClipped: clipped.greater(than: plain))
        }
        return copy
    }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let logRatio = try arguments.logProbs.subtracting(arguments.oldLogProbs)
        let (plain, clipped) = try settings.clippedObjectives(ratio: logRatio.exp(), arguments.advantages)
        let kept = try withNoGrad {
            let isClipped = try clipped.greater(than: plain)
            let cut = try cut ?? findCut(arguments, isClipped: isClipped)
            let dropped = try candidates(arguments, cut.covariance, isClipped).filter { $0.hash <= cut.highest }
            return try TokenHash.marks(dropped, like: isClipped).negated().adding(1)
        }
        return try arguments.result(plain.maximum(clipped).multiplied(by: kept)) {
            [
                ("actor/pg_clipfrac", try arguments.share(kept.negated().adding(1))),
                ("actor/ppo_kl", try arguments.share(logRatio.negated())),
            ]
        }
    }

    private func ratio(_ arguments: PolicyLossArguments) throws(TorchError) -> Tensor {
        try arguments.logProbs.subtracting(arguments.oldLogProbs).exp()
    }

    private func findCut(_ batch: PolicyLossArguments, isClipped: Tensor) throws -> Cut {
        guard settings.clipCovRatio > 0, settings.clipCovRatio <= 1 else {
            throw AlgorithmError(
                .badSetting, "clip_cov",
                "policy_loss.clip_cov_ratio is \(settings.clipCovRatio); give a number above 0, up to 1"
            )
        }
        let covariance = try TokenCovariance(of: batch)
        let count = max(1, Int(settings.clipCovRatio * (try batch.responseMask.sum().item())))
        let hashes = try candidates(batch, covariance, isClipped).map(\.hash).sorted()
        return Cut(covariance: covariance, highest: hashes.isEmpty ? 0 : hashes[min(count, hashes.count) - 1])
    }

    /// The tokens whose covariance is within the range and that PPO's clip has left alone.
    private func candidates(
        _ arguments: PolicyLossArguments, _ covariance: TokenCovariance, _ isClipped: Tensor
    ) throws(TorchError) -> [TokenHash] {
        let values = try covariance(arguments)
        let isCandidate = try values.greater(than: settings.clipCovLower)
            .logicalAnd(values.less(than: settings.clipCovUpper)).logicalAnd(isClipped.logicalNot())
        return try TokenHash.all(arguments, where: isCandidate)
    }
}
