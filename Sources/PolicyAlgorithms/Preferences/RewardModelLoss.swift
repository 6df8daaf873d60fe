public import TensorCore

/// The Bradley-Terry loss of a reward model: −log σ(chosen − rejected − margin), with an optional pull of the two rewards' sum to 0.
///
/// Source: TRL `RewardTrainer.compute_loss`.
public struct RewardModelLoss: Sendable, Hashable {
    public var centerCoefficient: Double
    public init(centerCoefficient: Double = 0) { self.centerCoefficient = centerCoefficient }

    /// - Parameters: chosen and rejected rewards, trainable, and margins, `[B]`; totals of the whole batch, pairs as sequences.
    public func callAsFunction(
        chosen: Tensor, rejected: Tensor, margin: Tensor? = nil, totals: LossAggregation.Totals = .init()
    ) throws(TorchError) -> PreferenceLossResult {
        let difference = try chosen.subtracting(rejected)
        var losses = try Pairs.logistic(
            margin.map { margin throws(TorchError) in try difference.subtracting(margin) } ?? difference)
        if centerCoefficient != 0 {
            losses = try losses.adding(chosen.adding(rejected).squared().multiplied(by: centerCoefficient))
        }
        let loss = try Pairs.mean(losses, totals)
        return PreferenceLossResult(
            loss: loss,
            metrics: try withNoGrad { () throws(TorchError) in
                [
                    ("accuracy", try difference.greater(than: 0).to(dtype: .float32).mean()),
                    ("margin", try difference.detached().mean()),
                ]
            })
    }
}
