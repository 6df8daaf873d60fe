public import TensorCore

/// Kahneman-Tversky optimisation (Ethayarajh et al. 2024) on answers that are each marked desirable or not, without pairs.
///
/// Source: TRL `KTOTrainer._compute_loss`.
public struct KTOLoss: Sendable, Hashable {
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        case kto
        /// The unpaired form of APO-zero (D'Oosterlinck et al. 2024): a KL of 0.
        case apoZeroUnpaired = "apo_zero_unpaired"
    }

    public var kind: Kind
    public var beta, desirableWeight, undesirableWeight: Double

    public init(_ kind: Kind = .kto, beta: Double = 0.1, desirableWeight: Double = 1, undesirableWeight: Double = 1) {
        self.kind = kind
        self.beta = beta
        self.desirableWeight = desirableWeight
        self.undesirableWeight = undesirableWeight
    }

    /// The KL estimate that the loss compares with: the mean log-ratio of answers put under other prompts, at least 0.
    ///
    /// - Parameters: log-probabilities of policy and reference and mask, `[B, T]`, of the whole batch.
    public static func kl(logProbs: Tensor, refLogProbs: Tensor, mask: Tensor) throws(TorchError) -> Double {
        max(0, try Masked.rowSum(logProbs.detached().subtracting(refLogProbs), mask).mean().item())
    }

    /// - Parameters:
    ///   - logProbs: trainable, `[B, T]`
    ///   - refLogProbs, mask: `[B, T]`
    ///   - isDesirable: one an answer
    ///   - kl: of the whole batch, see ``kl(logProbs:refLogProbs:mask:)``
    ///   - totals: of the whole batch, answers as sequences.
    /// - Throws: ``AlgorithmError`` (`mismatch`) unless there is one mark an answer.
    public func callAsFunction(
        logProbs: Tensor, refLogProbs: Tensor, mask: Tensor, isDesirable: [Bool], kl: Double = 0,
        totals: LossAggregation.Totals = .init()
    ) throws -> PreferenceLossResult {
        guard isDesirable.count == logProbs.size(0) else {
            throw AlgorithmError(
                .mismatch, "kto", "\(isDesirable.count) marks for \(logProbs.size(0)) answers; give one an answer")
        }
        let kl = kind == .kto ? kl : 0
        let sums = try Masked.rowSum(logProbs, mask)
        let ratios = try sums.subtracting(Masked.rowSum(refLogProbs.detached(), mask))
        func column(_ value: (Bool) -> Double) throws(TorchError) -> Tensor {
            try Tensor(isDesirable.map { Float(value($0)) }, device: logProbs.device)
        }
        // 1 − σ(±β (log ratio − KL)): upwards for a desirable answer.
        let direction = try column { $0 ? -beta : beta }
        let losses = try ratios.subtracting(kl).multiplied(by: direction).sigmoid()
            .multiplied(by: column { $0 ? desirableWeight : undesirableWeight })
        let loss = try Pairs.mean(losses, totals)

        let metrics = try withNoGrad {
            var metrics = [("kl", try Tensor([Float(kl)], shape: [], device: logProbs.device))]
            var rewards: [Tensor] = []
            for (name, isChosen) in [("chosen", true), ("rejected", false)] where isDesirable.contains(isChosen) {
                let isIn = try column { $0 == isChosen ? 1 : 0 }
                let reward = try Masked.sum(ratios, isIn).divided(by: isIn.sum()).multiplied(by: beta)
                rewards.append(reward)
                metrics.append(("rewards/\(name)", reward))
                metrics.append(("logps/\(name)", try Masked.sum(sums, isIn).divided(by: isIn.sum())))
            }
            if rewards.count == 2 { metrics.append(("rewards/margins", try rewards[0].subtracting(rewards[1]))) }
            return metrics
        }
        return PreferenceLossResult(loss: loss, metrics: metrics)
    }
}
