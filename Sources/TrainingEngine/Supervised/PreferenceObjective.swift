public import PolicyAlgorithms
import TensorCore

/// Direct preference optimisation and its kin on pairs of a chosen and a rejected answer.
public struct PreferenceObjective: SupervisedObjective {
    public var loss: DPOLoss
    public init(_ loss: DPOLoss = DPOLoss()) { self.loss = loss }

    public var needsReference: Bool { true }

    public func callAsFunction(_ batch: SupervisedBatch) throws -> LossOutput {
        guard let mask = batch.mask, let references = batch.references else {
            throw AlgorithmError(
                .missingInput, "dpo", "the reference's log-probabilities are missing; compute them first")
        }
        // Only sums over an answer count, and every answer begins with a learnt token: its place holds the sum.
        let width = mask.size(1)
        let first = try references.unsqueezed(1)
        let rest = try Tensor.zeros([references.count, width - 1], device: references.device)
        let result = try loss(
            logProbs: batch.values, refLogProbs: width > 1 ? Tensor.concatenate([first, rest], dim: 1) : first,
            mask: mask, totals: .init(tokens: batch.totals.tokens, sequences: batch.totals.examples))
        return LossOutput(
            loss: result.loss,
            metrics: [LossMetric("loss", try result.loss.detached())] + (try batch.shares(result.metrics)))
    }
}
