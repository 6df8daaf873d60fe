#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif
internal import TensorCore

extension DPOLoss {
    /// A term's loss of each pair, `[B]`.
    func losses(of term: Term, _ batch: Batch) throws -> Tensor {
        let (chosen, rejected) = batch.logRatios
        let margin = try batch.scores.chosen.subtracting(batch.scores.rejected).multiplied(by: beta)
        switch term {
        case .sigmoid: return try Pairs.logistic(margin)
        case .conservative: return try Pairs.logistic(margin, smoothing: labelSmoothing)
        case .hinge: return try margin.negated().adding(1).relu()
        case .ipo: return try perToken(batch).subtracting(1 / (2 * beta)).squared()
        case .sigmoidNorm: return try Pairs.logistic(perToken(batch).multiplied(by: beta))
        case .robust:
            // The expectation over labels flipped with the given chance, inverted (Chowdhury et al. 2024).
            let kept = try Pairs.logistic(margin).multiplied(by: 1 - labelSmoothing)
            let flipped = try Pairs.logistic(margin.negated()).multiplied(by: labelSmoothing)
            return try kept.subtracting(flipped).divided(by: 1 - 2 * labelSmoothing)
        case .exoPair: return try reverseKL(margin)
        case .ncaPair:
            let both = try negativeLogistic(chosen).adding(negativeLogistic(rejected)).multiplied(by: 0.5)
            return try Pairs.logistic(chosen.multiplied(by: beta)).adding(both)
        case .bcoPair:
            return try Pairs.logistic(chosen.multiplied(by: beta)).adding(negativeLogistic(rejected))
        case .sppoHard:
            return try chosen.subtracting(0.5 / beta).squared().adding(rejected.adding(0.5 / beta).squared())
        case .aot:
            // Margins of policy and reference, each in order over the call's pairs.
            let policy = try batch.logProbs.chosen.subtracting(batch.logProbs.rejected).sorted(0).values
            let reference = try batch.refLogProbs.chosen.subtracting(batch.refLogProbs.rejected).sorted(0).values
            return try Pairs.logistic(
                policy.subtracting(reference).multiplied(by: beta), smoothing: labelSmoothing)
        case .aotUnpaired:
            let delta = try chosen.sorted(0).values.subtracting(rejected.sorted(0).values)
            return try Pairs.logistic(delta.multiplied(by: beta), smoothing: labelSmoothing)
        case .apoZero:
            return try chosen.multiplied(by: -beta).sigmoid().adding(rejected.multiplied(by: beta).sigmoid())
        case .apoDown:
            let difference = try chosen.subtracting(rejected).multiplied(by: -beta)
            return try chosen.multiplied(by: beta).sigmoid().adding(difference.sigmoid())
        case .discopop:
            let gate = try margin.divided(by: discopopTau).sigmoid()
            let logistic = try Pairs.logistic(margin).multiplied(by: gate.negated().adding(1))
            return try logistic.adding(margin.negated().exp().multiplied(by: gate))
        case .sft:
            preconditionFailure("sft is a mean over tokens, not over pairs")
        }
    }

    /// The difference of scores per token.
    private func perToken(_ batch: Batch) throws(TorchError) -> Tensor {
        try batch.scores.chosen.divided(by: batch.lengths.chosen)
            .subtracting(batch.scores.rejected.divided(by: batch.lengths.rejected))
    }

    /// −log σ(−β x)
    private func negativeLogistic(_ x: Tensor) throws(TorchError) -> Tensor {
        try Pairs.logistic(x.multiplied(by: -beta))
    }

    /// KL of the policy's preference σ(margin) from the smoothed label (Ji et al. 2024, EXO).
    ///
    /// - Throws: ``AlgorithmError`` (`badSetting`) unless the smoothing is between 0 and 1: its logarithms are part of the loss.
    private func reverseKL(_ margin: Tensor) throws -> Tensor {
        guard labelSmoothing > 0, labelSmoothing < 1 else {
            throw AlgorithmError(
                .badSetting, "exo_pair", "label_smoothing is \(labelSmoothing); give a number above 0 and below 1")
        }
        let won = try margin.logSigmoid(), lost = try margin.negated().logSigmoid()
        return try won.exp().multiplied(by: won.subtracting(log1p(-labelSmoothing)))
            .adding(lost.exp().multiplied(by: lost.subtracting(log(labelSmoothing))))
    }
}
