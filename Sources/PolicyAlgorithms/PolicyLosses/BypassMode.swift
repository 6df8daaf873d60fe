internal import TensorCore

/// Bypass mode: the sampler's log-probabilities stand for the old policy's, and rollout correction runs at every call between the
/// current policy and the sampler's: its mask applies to the loss, its weights to REINFORCE alone (PPO's ratio already corrects).
///
/// Fitted to a batch, batch-normalised weights are divided by that batch's mean; else by the call's.
///
/// Source: verl `core_algos.compute_policy_loss_bypass_mode`.
public struct BypassModeLoss: PolicyLoss {
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        case ppoClip = "ppo_clip"
        case reinforce
    }

    public var needsWholeBatch: Bool { correction.normalizes }
    public var settings: PolicyLossSettings
    private var weightMean: Double?
    public init(_ settings: PolicyLossSettings) { self.settings = settings }

    private var correction: RolloutCorrection { settings.rolloutCorrection ?? RolloutCorrection() }

    public func fitted(to batch: PolicyLossArguments) throws -> any PolicyLoss {
        var copy = self
        copy.weightMean = try withNoGrad {
            try correction.weightMean(
                logProbs: batch.logProbs, rolloutLogProbs: batch.oldLogProbs, mask: batch.responseMask)
        }
        return copy
    }

    /// `oldLogProbs` are the sampler's; metrics of the correction are of this call's rows, not shares.
    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let corrected = try withNoGrad {
            try correction(
                logProbs: arguments.logProbs.detached(), rolloutLogProbs: arguments.oldLogProbs,
                mask: arguments.responseMask, weightMean: weightMean)
        }
        var arguments = arguments
        arguments.responseMask = corrected.mask
        var result: PolicyLossResult
        switch settings.bypassLoss {
        case .ppoClip:
            arguments.rolloutWeights = nil
            result = try PPOClipLoss(settings)(arguments)
        case .reinforce:
            arguments.rolloutWeights = corrected.weights
            result = try ReinforceLoss()(arguments)
        }
        result.metrics += corrected.metrics
        return result
    }
}
