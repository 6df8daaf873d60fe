public import TensorCore

/// Direct preference optimisation (Rafailov et al. 2023) and its kin: a weighted sum of terms on the log-ratios of policy and
/// reference of a chosen and a rejected answer.
///
/// `aot` and `aot_unpaired` sort over the rows of a call, so they alone depend on how a batch is split.
///
/// Source: TRL `DPOTrainer._compute_loss`.
public struct DPOLoss: Sendable, Hashable {
    /// By TRL's `loss_type`; `conservative` is the sigmoid loss under labels that are flipped with the chance `labelSmoothing`
    /// (cDPO, Mitchell 2023), which older versions of TRL computed for `sigmoid`.
    public enum Term: String, Sendable, Hashable, CaseIterable {
        case sigmoid, conservative, hinge, ipo, robust, aot, discopop, sft
        case exoPair = "exo_pair"
        case ncaPair = "nca_pair"
        case bcoPair = "bco_pair"
        case sppoHard = "sppo_hard"
        case aotUnpaired = "aot_unpaired"
        case apoZero = "apo_zero"
        case apoDown = "apo_down"
        case sigmoidNorm = "sigmoid_norm"
    }

    /// The f-divergence from the reference (Wang et al. 2023), which shapes log-ratios into scores.
    public enum Divergence: Sendable, Hashable {
        case reverseKL, forwardKL, jensenShannon
        case alpha(Double)
    }

    public struct WeightedTerm: Sendable, Hashable {
        public var term: Term
        public var weight: Double
        public init(_ term: Term, weight: Double = 1) {
            self.term = term
            self.weight = weight
        }
    }

    public var terms: [WeightedTerm]
    public var beta, labelSmoothing: Double
    public var divergence: Divergence
    /// The weight of an answer's tokens beyond the length of its shorter partner (Liu et al. 2024, LD-DPO); nil for 1.
    public var tailWeight: Double?
    public var discopopTau: Double

    public init(
        _ terms: [WeightedTerm] = [WeightedTerm(.sigmoid)], beta: Double = 0.1, labelSmoothing: Double = 0,
        divergence: Divergence = .reverseKL, tailWeight: Double? = nil, discopopTau: Double = 0.05
    ) {
        self.terms = terms
        self.beta = beta
        self.labelSmoothing = labelSmoothing
        self.divergence = divergence
        self.tailWeight = tailWeight
        self.discopopTau = discopopTau
    }

    /// What the terms work on: `[B]` each but for the last.
    struct Batch {
        let logProbs, refLogProbs, logRatios, scores, lengths: (chosen: Tensor, rejected: Tensor)
        let chosenTokens, chosenMask: Tensor
        let totals: LossAggregation.Totals
    }

    /// - Parameters:
    ///   - logProbs: of the tokens, trainable, `[2B, T]`: chosen answers first, then the rejected in the same order
    ///   - refLogProbs: `[2B, T]`
    ///   - mask: 0/1 float32 `[2B, T]`, 1 at answer tokens
    ///   - totals: of the whole batch, pairs as sequences and the chosen answers' tokens (for `sft`) as tokens.
    public func callAsFunction(
        logProbs: Tensor, refLogProbs: Tensor, mask: Tensor, totals: LossAggregation.Totals = .init()
    ) throws -> PreferenceLossResult {
        let policy = try Pairs.halves(sequenceLogProbs(logProbs, mask))
        let reference = try Pairs.halves(sequenceLogProbs(refLogProbs.detached(), mask))
        let ratios = (
            chosen: try policy.chosen.subtracting(reference.chosen),
            rejected: try policy.rejected.subtracting(reference.rejected)
        )
        let batch = Batch(
            logProbs: policy, refLogProbs: reference, logRatios: ratios,
            scores: (try score(ratios.chosen), try score(ratios.rejected)),
            lengths: try Pairs.halves(mask.sum(-1).clamped(min: 1)),
            chosenTokens: try Pairs.halves(logProbs).chosen, chosenMask: try Pairs.halves(mask).chosen, totals: totals)
        var loss = try Tensor.zeros([], device: logProbs.device)
        for term in terms { loss = try loss.adding(share(of: term.term, batch).multiplied(by: term.weight)) }
        let metrics = try withNoGrad {
            try Pairs.metrics(
                rewards: (try ratios.chosen.multiplied(by: beta), try ratios.rejected.multiplied(by: beta)),
                logProbs: (try policy.chosen.detached(), try policy.rejected.detached()))
        }
        return PreferenceLossResult(loss: loss, metrics: metrics)
    }

    private func share(of term: Term, _ batch: Batch) throws -> Tensor {
        guard term == .sft else { return try Pairs.mean(losses(of: term, batch), batch.totals) }
        return try SFTLoss()(batch.chosenTokens, mask: batch.chosenMask, totals: batch.totals)
    }

    private func sequenceLogProbs(_ logProbs: Tensor, _ mask: Tensor) throws(TorchError) -> Tensor {
        guard let tailWeight else { return try Masked.rowSum(logProbs, mask) }
        let position = try mask.cumulativeSum(-1)
        let lengths = try Pairs.halves(mask.sum(-1, keepDim: true))
        let shorter = try lengths.chosen.minimum(lengths.rejected)
        let isTail = try position.greater(than: Tensor.concatenate([shorter, shorter]))
        let weight = try isTail.to(dtype: .float32).multiplied(by: tailWeight - 1).adding(1)
        return try Masked.rowSum(logProbs.multiplied(by: weight), mask)
    }

    private func score(_ logRatios: Tensor) throws(TorchError) -> Tensor {
        switch divergence {
        case .reverseKL: return logRatios
        case .forwardKL: return try logRatios.negated().exp().negated().adding(1)
        case .jensenShannon: return try logRatios.logSigmoid().adding(0.693_147_180_559_945_3)
        case .alpha(let alpha):
            // The limit at 1 is the logarithm.
            guard Swift.abs(alpha - 1) >= 1e-6 else { return logRatios }
            return try logRatios.multiplied(by: alpha - 1).clamped(max: 80).exp().subtracting(1).divided(by: alpha - 1)
        }
    }
}
