import Models
import TensorCore

/// The loss that pulls a mixture's experts towards equal shares, each micro-batch's own, weighted by its tokens.
struct RouterBalance {
    var coefficient: Double
    /// The group of its metrics: `actor`, `train`.
    var group: String

    /// Adds a micro-batch's part to its output.
    /// - Parameter share: the micro-batch's tokens by those of the whole batch.
    func add(to output: inout LossOutput, _ outputs: ResponseOutputs, share: Double) throws(TorchError) {
        guard let (record, weights) = outputs.routing,
            let term = try record.loadBalancingLoss(tokenWeights: weights)?.multiplied(by: share)
        else { return }
        precondition(output.start == nil, "backward would begin below the sum of both losses")
        output.loss = try output.loss.adding(term.multiplied(by: coefficient))
        let loads = try record.loads()
        output.metrics += [
            LossMetric("\(group)/router_aux_loss", try term.detached()),
            LossMetric("\(group)/expert_imbalance", try Tensor([Float(loads.map(\.imbalance).max() ?? 1)]), .max),
            LossMetric("\(group)/unused_experts", try Tensor([Float(loads.map(\.unused).max() ?? 0)]), .max),
        ]
    }
}
