internal import TensorCore

/// Clipped importance weights (MiniMax-M1 2025): −stop-gradient(clip(ratio)) · advantage · log π, so that no token loses its
/// gradient.
///
/// Source: verl `core_algos.compute_policy_loss_cispo`.
public struct CISPOLoss: PolicyLoss {
    public var settings: PolicyLossSettings
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let logRatio = try arguments.logRatio.detached()
        let ratio = try logRatio.exp()
        let clipped = try ratio.clamped(min: 1 - settings.clipLow, max: 1 + settings.clipHigh)
        let losses = try clipped.multiplied(by: arguments.advantages).multiplied(by: arguments.logProbs).negated()
        return try arguments.result(losses) {
            let wasClipped = try ratio.subtracting(clipped).notEqual(to: 0).to(dtype: .float32)
            return [
                ("actor/pg_clipfrac", try arguments.share(wasClipped)),
                ("actor/ppo_kl", try arguments.share(logRatio.negated())),
                ("actor/pg_clipfrac_lower", try Tensor.zeros([], device: losses.device)),
            ]
        }
    }
}
