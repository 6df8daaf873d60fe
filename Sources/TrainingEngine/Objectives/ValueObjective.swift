public import PolicyAlgorithms
import TensorCore

/// The loss of a critic's update.
public struct ValueObjective: Sendable {
    public var loss: ValueLoss
    public var aggregation: LossAggregation

    public init(loss: ValueLoss = ValueLoss(), aggregation: LossAggregation = LossAggregation(.tokenMean)) {
        self.loss = loss
        self.aggregation = aggregation
    }

    public func callAsFunction(_ inputs: ValueLossInputs) throws -> LossOutput {
        let totals = LossAggregation.Totals(tokens: inputs.totals.tokens, sequences: inputs.totals.sequences)
        var aggregation = aggregation
        if aggregation.scaleFactor == nil { aggregation.scaleFactor = Double(inputs.totals.width) }
        let result = try loss(
            predictions: inputs.predictions, oldValues: inputs.oldValues, returns: inputs.returns,
            mask: inputs.responseMask, aggregation: aggregation, totals: totals)
        return LossOutput(
            loss: result.loss,
            metrics: [
                LossMetric("critic/vf_loss", try result.loss.detached()),
                LossMetric("critic/vf_clipfrac", result.clipFraction),
                LossMetric(
                    "critic/vpred_mean",
                    try withNoGrad {
                        try Masked.share(inputs.predictions.detached(), inputs.responseMask, totals: totals)
                    }),
            ])
    }
}
