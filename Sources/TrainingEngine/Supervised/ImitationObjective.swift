public import PolicyAlgorithms
import TensorCore

/// Supervised fine-tuning: the learnt tokens' negative log-likelihood, over all learnt tokens of the batch.
public struct ImitationObjective: SupervisedObjective {
    public var loss: SFTLoss
    public init(_ loss: SFTLoss = SFTLoss()) { self.loss = loss }

    public var sequencesPerExample: Int { 1 }

    public func gradient(_ totals: SupervisedTotals) -> Double? {
        switch loss.kind {
        case .nll: -1 / Double(max(1, totals.tokens))
        case .dft: nil
        }
    }

    public func callAsFunction(_ batch: SupervisedBatch) throws -> LossOutput {
        guard let mask = batch.mask, let entropies = batch.entropies else {
            preconditionFailure("log-probabilities come with their mask")
        }
        let tokens = batch.totals.tokens
        let value = try loss(batch.values, mask: mask, totals: .init(tokens: tokens))
        let entropy = try Masked.sum(entropies.detached(), mask).divided(by: Double(max(1, tokens)))
        return LossOutput(
            loss: value, metrics: [LossMetric("loss", try value.detached()), LossMetric("entropy", entropy)])
    }
}
