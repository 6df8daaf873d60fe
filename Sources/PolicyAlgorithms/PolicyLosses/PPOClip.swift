internal import TensorCore

/// PPO's clipped objective (Schulman et al. 2017) with separate lower and upper ranges and dual clip.
///
/// Source: verl `core_algos.compute_policy_loss_vanilla`.
public struct PPOClipLoss: PolicyLoss {
    public var settings: PolicyLossSettings
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let advantages = arguments.advantages
        let logRatio = try arguments.logRatio
        let (plain, clipped) = try settings.clippedObjectives(ratio: logRatio.exp(), advantages)
        let pessimistic = try plain.maximum(clipped)
        let bound = try advantages.multiplied(by: -settings.dualClip)
        let isNegative = try advantages.less(than: 0)
        let losses = try isNegative.select(pessimistic.minimum(bound), else: pessimistic)
        return try arguments.result(losses) {
            let wasClipped = try clipped.greater(than: plain).to(dtype: .float32)
            let wasBounded = try pessimistic.greater(than: bound).logicalAnd(isNegative).to(dtype: .float32)
            return [
                ("actor/pg_clipfrac", try arguments.share(wasClipped)),
                ("actor/ppo_kl", try arguments.share(logRatio.negated())),
                ("actor/pg_clipfrac_lower", try arguments.share(wasBounded)),
            ]
        }
    }
}

extension PolicyLossSettings {
    /// −ratio · advantage, and the same with the ratio clipped: `[B, L]` each.
    func clippedObjectives(ratio: Tensor, _ advantages: Tensor) throws(TorchError) -> (plain: Tensor, clipped: Tensor) {
        let clipped = try ratio.clamped(min: 1 - clipLow, max: 1 + clipHigh)
        return (
            try ratio.multiplied(by: advantages).negated(), try clipped.multiplied(by: advantages).negated()
        )
    }
}
