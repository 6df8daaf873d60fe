import PolicyAlgorithms
import TensorCore
import TrainingEngine

/// The loss of a policy update: policy gradient, entropy bonus, KL to the reference. Made from the configuration; the trainer
/// sees only the function.
struct PolicyObjective {
    var policyLoss: any PolicyLoss
    var aggregation: LossAggregation
    var entropyCoefficient: Double
    var kl: (estimator: PolicyAlgorithms.KLEstimator, coefficient: Double)?

    /// Whether a sequence without advantage adds nothing to the gradient.
    var vanishesWithoutAdvantage: Bool { policyLoss.vanishesWithoutAdvantage && entropyCoefficient == 0 && kl == nil }

    func callAsFunction(_ inputs: PolicyLossInputs) throws -> PolicyLossOutput {
        let totals = LossAggregation.Totals(tokens: inputs.totals.tokens, sequences: inputs.totals.sequences)
        let mask = inputs.responseMask
        // seq-mean-token-sum-norm divides by the whole batch's width, not by this micro-batch's.
        var aggregation = aggregation
        if aggregation.scaleFactor == nil { aggregation.scaleFactor = Double(inputs.totals.width) }
        let policy = try policyLoss(
            PolicyLossArguments(
                oldLogProbs: inputs.oldLogProbs, logProbs: inputs.logProbs, advantages: inputs.advantages,
                responseMask: mask, aggregation: aggregation, totals: totals, rolloutWeights: inputs.importanceWeights))
        var loss = policy.loss
        var metrics = [LossMetric("actor/pg_loss", try policy.loss.detached())]
        metrics += policy.metrics.map { LossMetric($0.name, $0.value) }

        if entropyCoefficient != 0 {
            let entropy = try aggregation(inputs.entropies, mask: mask, totals: totals)
            loss = try loss.subtracting(entropy.multiplied(by: entropyCoefficient))
        }
        if let kl, let reference = inputs.refLogProbs {
            let perToken = try kl.estimator(inputs.logProbs, reference)
            let term = try aggregation(perToken, mask: mask, totals: totals)
            loss = try loss.adding(term.multiplied(by: kl.coefficient))
            metrics.append(LossMetric("actor/kl_loss", try term.detached()))
            metrics.append(LossMetric("actor/kl", try Masked.sum(perToken.detached(), mask), .tokenMean))
        }
        metrics.append(LossMetric("actor/entropy", try Masked.sum(inputs.entropies.detached(), mask), .tokenMean))

        // What the sampler recorded against what training computes for the same tokens and weights.
        let difference = try withNoGrad {
            try inputs.oldLogProbs.subtracting(inputs.rolloutLogProbs).abs().multiplied(by: mask)
        }
        metrics.append(LossMetric("training/rollout_logprobs_diff_max", try difference.max(), .max))
        metrics.append(LossMetric("training/rollout_logprobs_diff_mean", try difference.sum(), .tokenMean))
        return PolicyLossOutput(loss: loss, metrics: metrics)
    }
}
