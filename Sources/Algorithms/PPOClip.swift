public import TensorCore

/// PPO's clipped objective (Schulman et al. 2017) with separate lower and upper ranges and dual clip.
///
/// Source: verl `core_algos.compute_policy_loss_vanilla`.
public struct PPOClipLoss: PolicyLoss {
    public var settings: PolicyLossSettings
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let advantages = arguments.advantages
        let logRatio = try arguments.logProbs.subtracting(arguments.oldLogProbs).clamped(min: -20, max: 20)
        let ratio = try logRatio.exp()
        let plain = try ratio.multiplied(by: advantages).negated()
        let clipped = try ratio.clamped(min: 1 - settings.clipLow, max: 1 + settings.clipHigh)
            .multiplied(by: advantages).negated()
        let pessimistic = try plain.maximum(clipped)
        let bound = try advantages.multiplied(by: -settings.dualClip)
        let bounded = try pessimistic.minimum(bound)
        let isNegative = try advantages.less(than: 0)
        let losses = try isNegative.select(bounded, else: pessimistic)
        let loss = try arguments.aggregate(losses)

        return try withNoGrad {
            let wasClipped = try clipped.greater(than: plain).to(dtype: .float32)
            let wasBounded = try pessimistic.greater(than: bound).logicalAnd(isNegative).to(dtype: .float32)
            return PolicyLossResult(
                loss: loss,
                metrics: [
                    ("actor/pg_clipfrac", try arguments.share(wasClipped)),
                    ("actor/ppo_kl", try arguments.share(logRatio.negated())),
                    ("actor/pg_clipfrac_lower", try arguments.share(wasBounded)),
                ])
        }
    }
}
