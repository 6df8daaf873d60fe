internal import TensorCore

/// Geometric-mean policy optimisation (Zhao et al. 2025): −advantage · the geometric mean of an answer's ratios, each clipped in
/// the log domain to [−low, high]; then the mean over sequences, whatever mode is configured. Weights of rollout correction come
/// in by their geometric mean.
///
/// The mean is over the whole batch's sequences, an answer's share not depending on the micro-batch; verl divides by the rows at
/// hand and so does this with ``PolicyLossSettings/geoMeanCountsRows``.
///
/// Source: verl `core_algos.compute_policy_loss_geo_mean`.
public struct GeoMeanLoss: PolicyLoss {
    public var settings: PolicyLossSettings
    public init(_ settings: PolicyLossSettings = PolicyLossSettings()) { self.settings = settings }

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let (advantages, mask) = (arguments.advantages, arguments.responseMask)
        let logRatio = try arguments.logProbs.subtracting(arguments.oldLogProbs)
        let clamped = try logRatio.clamped(min: -settings.clipLow, max: settings.clipHigh)
        let sign = try advantages.sign()
        let pessimistic = try sign.multiplied(by: logRatio).minimum(sign.multiplied(by: clamped)).multiplied(by: sign)
        let ratio_B = try Masked.rowMean(pessimistic, mask).exp()
        var losses_B = try Masked.rowMean(advantages, mask).multiplied(by: ratio_B).negated()
        if let weights = arguments.rolloutWeights {
            let logWeight_B = try Masked.rowMean(weights.detached().adding(1e-10).log(), mask)
            losses_B = try losses_B.multiplied(by: logWeight_B.exp())
        }

        let loss: Tensor
        if settings.geoMeanCountsRows {
            loss = try losses_B.mean()
        } else {
            // Row losses under their rows' own mask: a row without tokens has advantage 0 and adds nothing.
            let isSequence = try mask.sum(-1, keepDim: true).greater(than: 0).to(dtype: .float32)
            loss = try LossAggregation(.seqMeanTokenSum)(
                losses_B.unsqueezed(-1), mask: isSequence, totals: arguments.totals)
        }
        let metrics = try withNoGrad {
            let wasClipped = try logRatio.subtracting(clamped).notEqual(to: 0)
            let above = try wasClipped.logicalAnd(advantages.greater(than: 0)).to(dtype: .float32)
            let below = try wasClipped.logicalAnd(advantages.less(than: 0)).to(dtype: .float32)
            return [
                ("actor/pg_clipfrac", try arguments.share(above)),
                ("actor/ppo_kl", try arguments.share(logRatio.negated())),
                ("actor/pg_clipfrac_lower", try arguments.share(below)),
            ]
        }
        return PolicyLossResult(loss: loss, metrics: metrics)
    }
}
