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
            var kept = [Float](repeating: 1, count: isClipped.count)
            for candidate in try candidates(arguments, cut.covariance, isClipped) where candidate.hash <= cut.highest {
                kept[candidate.index] = 0
            }
            return try Tensor(kept, shape: isClipped.shape, device: isClipped.device)
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
        guard settings.clipCovRatio > 0 else {
            throw AlgorithmError(
                .badSetting, "clip_cov",
                "policy_loss.clip_cov_ratio is \(settings.clipCovRatio); give a positive number"
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
    ) throws -> [(index: Int, hash: UInt64)] {
        let values = try covariance(arguments)
        let isCandidate = try values.greater(than: settings.clipCovLower)
            .logicalAnd(values.less(than: settings.clipCovUpper)).logicalAnd(isClipped.logicalNot()).flattened()
        let indices = try isCandidate.nonZero().flattened()
        let logProbs = try arguments.oldLogProbs.flattened().indexSelect(0, indices).values(Float.self)
        let advantages = try arguments.advantages.flattened().indexSelect(0, indices).values(Float.self)
        let width = arguments.responseMask.size(1)
        return try indices.values(Int64.self).enumerated().map { place, index in
            let bits = UInt64(logProbs[place].bitPattern) << 32 | UInt64(advantages[place].bitPattern)
            return (Int(index), Self.mixed(bits &+ Self.mixed(UInt64(Int(index) % width))))
        }
    }

    /// SplitMix64's finaliser.
    private static func mixed(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
