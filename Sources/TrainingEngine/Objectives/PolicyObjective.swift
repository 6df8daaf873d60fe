public import PolicyAlgorithms
public import TensorCore

/// The loss of a policy update: policy gradient, entropy bonus, KL to the reference, and the value loss of a critic that shares the
/// trunk. The trainer sees only the function.
public struct PolicyObjective {
    public var policyLoss: any PolicyLoss
    public var aggregation: LossAggregation
    public var entropyCoefficient: Double
    public var kl: (estimator: KLEstimator, coefficient: Double)?
    /// Whether the sampler's log-probabilities stand for the old policy's.
    public var bypassesOldLogProbs = false
    /// Of a critic that shares the trunk.
    public var value: (loss: ValueObjective, coefficient: Double)?

    public init(
        policyLoss: any PolicyLoss, aggregation: LossAggregation, entropyCoefficient: Double = 0,
        kl: (estimator: KLEstimator, coefficient: Double)? = nil, bypassesOldLogProbs: Bool = false,
        value: (loss: ValueObjective, coefficient: Double)? = nil
    ) {
        self.policyLoss = policyLoss
        self.aggregation = aggregation
        self.entropyCoefficient = entropyCoefficient
        self.kl = kl
        self.bypassesOldLogProbs = bypassesOldLogProbs
        self.value = value
    }

    /// Whether a sequence without advantage adds nothing to the gradient.
    public var vanishesWithoutAdvantage: Bool {
        policyLoss.vanishesWithoutAdvantage && entropyCoefficient == 0 && kl == nil && value == nil
    }

    /// This objective with what its policy loss needs to know of the whole mini-batch, so that the micro-batches' shares add up.
    public func fitted(to samples: [PolicySample]) throws -> PolicyObjective {
        guard policyLoss.needsWholeBatch, !samples.isEmpty else { return self }
        let padding = Padding(lengths: samples.map(\.sequence.response.count))
        let old = try padding.pad(
            samples.map { bypassesOldLogProbs ? $0.rolloutLogProbs : $0.oldLogProbs ?? $0.rolloutLogProbs },
            device: .cpu)
        let mask = try padding.pad(
            samples.map { sample in
                sample.responseMask?.map { $0 ? 1 : 0 } ?? [Float](repeating: 1, count: sample.sequence.response.count)
            }, device: .cpu)
        var objective = self
        objective.policyLoss = try policyLoss.fitted(
            to: PolicyLossArguments(
                oldLogProbs: old, logProbs: old, advantages: padding.pad(samples.map(\.advantages), device: .cpu),
                responseMask: mask, aggregation: aggregation))
        return objective
    }

    public func callAsFunction(_ inputs: PolicyLossInputs) throws -> PolicyLossOutput {
        let totals = LossAggregation.Totals(tokens: inputs.totals.tokens, sequences: inputs.totals.sequences)
        let mask = inputs.responseMask
        // seq-mean-token-sum-norm divides by the whole batch's width, not by this micro-batch's.
        var aggregation = aggregation
        if aggregation.scaleFactor == nil { aggregation.scaleFactor = Double(inputs.totals.width) }
        let policy = try policyLoss(
            PolicyLossArguments(
                oldLogProbs: bypassesOldLogProbs ? inputs.rolloutLogProbs : inputs.oldLogProbs,
                logProbs: inputs.logProbs, advantages: inputs.advantages, responseMask: mask, aggregation: aggregation,
                totals: totals, rolloutWeights: inputs.importanceWeights))
        var loss = policy.loss
        var metrics = [LossMetric("actor/pg_loss", try policy.loss.detached())]
        metrics += try policy.metrics.map { try metric($0.name, $0.value, inputs) }

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
        if let value, let values = inputs.values {
            let output = try value.loss(
                ValueLossInputs(
                    predictions: values.predictions, oldValues: values.old, returns: values.returns,
                    responseMask: mask, totals: inputs.totals))
            loss = try loss.adding(output.loss.multiplied(by: value.coefficient))
            metrics += output.metrics
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

    /// Figures of the correction inside bypass mode are of the rows at hand; they are weighed by their tokens.
    private func metric(_ name: String, _ value: Tensor, _ inputs: PolicyLossInputs) throws -> LossMetric {
        guard name.hasPrefix("rollout_corr/") else { return LossMetric(name, value) }
        if name.hasSuffix("_max") { return LossMetric(name, value, .max) }
        let share = try inputs.responseMask.sum().divided(by: Double(max(1, inputs.totals.tokens)))
        return LossMetric(name, try value.multiplied(by: share))
    }
}
