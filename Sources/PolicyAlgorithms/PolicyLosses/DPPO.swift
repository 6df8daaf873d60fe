internal import TensorCore

/// Divergence PPO: −stop-gradient(min(ratio, c)) · advantage · log π over the tokens whose probability has not yet moved too far
/// in the direction that the advantage pushes it. The bounds are ``PolicyLossSettings/clipHigh`` for positive and
/// ``PolicyLossSettings/clipLow`` for other advantages, c is ``PolicyLossSettings/dualClip``.
///
/// Source: verl `core_algos.compute_policy_loss_dppo_tv` and `compute_policy_loss_dppo_kl`.
public struct DPPOLoss: PolicyLoss {
    /// How far a token's probability has moved: by its difference, or by the KL of token against all others.
    public enum Divergence: Sendable, Hashable { case totalVariation, binaryKL }

    public var settings: PolicyLossSettings
    public var divergence: Divergence
    public init(_ settings: PolicyLossSettings = PolicyLossSettings(), divergence: Divergence) {
        self.settings = settings
        self.divergence = divergence
    }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let (logRatio, ratio, isIn) = try withNoGrad {
            let logRatio = try arguments.logRatio
            return (logRatio, try logRatio.exp(), try isInside(arguments).to(dtype: .float32))
        }
        let weight = try ratio.clamped(max: settings.dualClip).multiplied(by: isIn)
        let losses = try weight.multiplied(by: arguments.advantages).multiplied(by: arguments.logProbs).negated()
        return try arguments.result(losses) {
            let wasCut = try ratio.greater(than: settings.dualClip).to(dtype: .float32).multiplied(by: isIn)
            return [
                ("actor/pg_clipfrac", try arguments.share(isIn.negated().adding(1))),
                ("actor/ppo_kl", try arguments.share(logRatio.negated())),
                ("actor/pg_clipfrac_lower", try arguments.share(wasCut)),
            ]
        }
    }

    private func isInside(_ arguments: PolicyLossArguments) throws(TorchError) -> Tensor {
        let new = try arguments.logProbs.exp(), old = try arguments.oldLogProbs.exp()
        let above: Tensor, below: Tensor
        switch divergence {
        case .totalVariation:
            let difference = try new.subtracting(old)
            above = try difference.lessOrEqual(to: settings.clipHigh)
            below = try difference.greaterOrEqual(to: -settings.clipLow)
        case .binaryKL:
            let others = try Self.complement(old).divided(by: Self.complement(new)).log()
            let kl = try old.multiplied(by: arguments.oldLogProbs.subtracting(arguments.logProbs))
                .adding(old.negated().adding(1).multiplied(by: others))
            above = try kl.lessOrEqual(to: settings.clipHigh).logicalOr(new.lessOrEqual(to: old))
            below = try kl.lessOrEqual(to: settings.clipLow).logicalOr(new.greaterOrEqual(to: old))
        }
        return try arguments.advantages.greater(than: 0).select(above, else: below)
    }

    /// 1 − p, kept above 0.
    private static func complement(_ p: Tensor) throws(TorchError) -> Tensor { try p.negated().adding(1).adding(1e-8) }
}
