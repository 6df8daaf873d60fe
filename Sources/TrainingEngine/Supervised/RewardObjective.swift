public import PolicyAlgorithms
import TensorCore

/// A reward model's: the chosen answer's score above the rejected one's, after Bradley and Terry.
public struct RewardObjective: SupervisedObjective {
    public var loss: RewardModelLoss
    public init(_ loss: RewardModelLoss = RewardModelLoss()) { self.loss = loss }

    public var reading: SupervisedReading { .sequenceScores }

    public func callAsFunction(_ batch: SupervisedBatch) throws -> LossOutput {
        let chosen = try batch.values.narrowed(0, 0..<batch.count)
        let rejected = try batch.values.narrowed(0, batch.count..<2 * batch.count)
        let result = try loss(
            chosen: chosen, rejected: rejected, margin: batch.margins, totals: .init(sequences: batch.totals.examples))
        let means = try withNoGrad {
            [
                ("rewards/chosen", try chosen.mean()), ("rewards/rejected", try rejected.mean()),
                ("rewards/accuracies", try chosen.greater(than: rejected).to(dtype: .float32).mean()),
                ("rewards/margins", try chosen.subtracting(rejected).mean()),
            ]
        }
        return LossOutput(
            loss: result.loss, metrics: [LossMetric("loss", try result.loss.detached())] + (try batch.shares(means)))
    }
}
