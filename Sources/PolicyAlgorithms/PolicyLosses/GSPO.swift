internal import TensorCore

/// Group sequence policy optimisation (Zheng et al. 2025): PPO's clip on the sequence's ratio, the geometric mean of its tokens',
/// with each token's own gradient (the GSPO-token form).
///
/// Source: verl `core_algos.compute_policy_loss_gspo`.
public struct GSPOLoss: PolicyLoss {
    public var settings: PolicyLossSettings
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let (logProbs, mask) = (arguments.logProbs, arguments.responseMask)
        let tokenLogRatio = try logProbs.subtracting(arguments.oldLogProbs).detached()
        let length_B = try mask.sum(-1).clamped(min: 1)
        let mean_B = try Masked.rowSum(tokenLogRatio, mask).divided(by: length_B)
        // The value is the sequence's mean, the gradient the token's own.
        let logRatio = try logProbs.subtracting(logProbs.detached()).adding(mean_B.unsqueezed(-1)).clamped(max: 10)
        let (plain, clipped) = try settings.clippedObjectives(ratio: logRatio.exp(), arguments.advantages)
        return try arguments.result(plain.maximum(clipped)) {
            let wasClipped = try clipped.greater(than: plain).to(dtype: .float32)
            return [
                ("actor/pg_clipfrac", try arguments.share(wasClipped)),
                ("actor/ppo_kl", try arguments.share(tokenLogRatio.negated())),
                ("actor/pg_clipfrac_lower", try Tensor.zeros([], device: mask.device)),
            ]
        }
    }
}
