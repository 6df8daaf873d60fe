public import TensorCore

/// Corrects for a sampler whose policy is not quite the one that trains (other kernels, other precision, older weights): importance
/// weights, cut from above (truncated importance sampling, TIS) or zeroed outside a range (IcePop), and rejection of what has moved
/// too far.
///
/// Source: verl `rollout_corr_helper.compute_rollout_correction_and_rejection_mask`.
public struct RolloutCorrection: Sendable, Hashable {
    /// Weights of single tokens, or of whole answers by the product over their tokens.
    public enum Level: String, Sendable, Hashable, CaseIterable { case token, sequence }

    /// nil for no weights.
    public var level: Level?
    /// With a lower bound IcePop, without TIS.
    public var bounds: RatioBounds
    /// Whether weights are divided by their mean over the batch.
    public var normalizes: Bool
    /// All of them must let a token pass.
    public var rules: [RejectionRule]

    public init(
        level: Level? = nil, bounds: RatioBounds = RatioBounds(upper: 2), normalizes: Bool = false,
        rules: [RejectionRule] = []
    ) {
        self.level = level
        self.bounds = bounds
        self.normalizes = normalizes
        self.rules = rules
    }

    public struct Result {
        /// `[B, L]`, constants, 0 outside the mask given; nil where there are none.
        public let weights: Tensor?
        /// The mask less what was rejected, `[B, L]`.
        public let mask: Tensor
        /// Scalars under verl's names, `rollout_corr/…`; none for a batch without tokens.
        public let metrics: [(name: String, value: Tensor)]
    }

    /// The largest |log ρ| that is put into an exponential.
    static let safetyBound = 20.0

    /// - Parameters:
    ///   - logProbs: the training policy's, float32 `[B, L]`
    ///   - rolloutLogProbs: the sampler's, float32 `[B, L]`
    ///   - mask: 0/1 float32 `[B, L]`
    ///   - weightMean: the whole batch's mean weight for `normalizes`; nil takes that of these rows.
    public func callAsFunction(
        logProbs: Tensor, rolloutLogProbs: Tensor, mask: Tensor, weightMean: Double? = nil
    ) throws -> Result {
        try withNoGrad {
            let logRatio = try logProbs.subtracting(rolloutLogProbs).detached()
            var metrics = RolloutCorrectionMetrics(mask: mask)
            let isEmpty = try mask.sum().item() == 0

            var weights: Tensor?
            if let level {
                let raw = try rawWeights(logRatio, mask, level)
                var cut = try cut(raw)
                if !isEmpty { try metrics.addWeights(cut, raw: raw, logRatio: logRatio, level: level, bounds: bounds) }
                if normalizes {
                    let factor = try weightMean ?? mean(cut, mask, level)
                    cut = try cut.divided(by: factor)
                    metrics.add(
                        "rollout_is_batch_norm_factor", try Tensor([Float(factor)], shape: [], device: mask.device))
                }
                weights = cut
            }

            var kept = mask
            for rule in rules {
                let verdict = try rule(logRatio, mask)
                kept = try kept.multiplied(by: verdict.kept)
                if !isEmpty { try metrics.addRejection(rule, verdict) }
            }
            if !isEmpty {
                if !rules.isEmpty { try metrics.addRejected(kept) }
                try metrics.addDistances(logProbs, rolloutLogProbs)
            }
            return Result(weights: weights, mask: kept, metrics: isEmpty ? [] : metrics.all)
        }
    }

    /// The mean weight of a batch, by which `normalizes` divides; nil without normalisation.
    public func weightMean(logProbs: Tensor, rolloutLogProbs: Tensor, mask: Tensor) throws -> Double? {
        guard let level, normalizes else { return nil }
        return try withNoGrad {
            try mean(cut(rawWeights(logProbs.subtracting(rolloutLogProbs).detached(), mask, level)), mask, level)
        }
    }

    private func rawWeights(_ logRatio: Tensor, _ mask: Tensor, _ level: Level) throws(TorchError) -> Tensor {
        let exponent =
            switch level {
            case .token: logRatio
            case .sequence: try Masked.rowSum(logRatio, mask).unsqueezed(-1)
            }
        let ratio = try exponent.clamped(min: -Self.safetyBound, max: Self.safetyBound).exp()
        return try Masked.kept(ratio.expanded(mask.shape), mask)
    }

    private func cut(_ raw: Tensor) throws(TorchError) -> Tensor {
        guard let lower = bounds.lower else { return try raw.clamped(max: bounds.upper) }
        let isInside = try raw.greaterOrEqual(to: lower).logicalAnd(raw.lessOrEqual(to: bounds.upper))
        return try isInside.select(raw, else: Tensor.zeros([], device: raw.device))
    }

    /// Over tokens, or over answers; 1 where it would be no divisor.
    private func mean(_ weights: Tensor, _ mask: Tensor, _ level: Level) throws(TorchError) -> Double {
        let mean: Double
        switch level {
        case .token: mean = try Masked.mean(weights, mask).item()
        case .sequence:
            let isSequence = try mask.sum(-1).greater(than: 0).to(dtype: .float32)
            let sum = try Masked.rowMean(weights, mask).multiplied(by: isSequence).sum()
            mean = try sum.divided(by: isSequence.sum().clamped(min: 1e-8)).item()
        }
        return mean > 1e-8 ? mean : 1
    }
}

extension RolloutCorrection {
    /// From the configuration's texts (`rollout_is`, `rollout_is_threshold`, `rollout_rs`, `rollout_rs_threshold`).
    ///
    /// - Throws: ``AlgorithmError`` (`badSetting`) for an unknown name or a threshold out of range.
    public init(
        weights: String?, threshold: String = "2.0", normalizes: Bool = false, rejection: String? = nil,
        rejectionThreshold: String? = nil
    ) throws {
        self.init(normalizes: normalizes)
        if let weights {
            guard let level = Level(rawValue: weights) else {
                throw AlgorithmError(.badSetting, "rollout_is", "'\(weights)' is no level; give token or sequence")
            }
            self.level = level
            bounds = try RatioBounds(threshold, setting: "rollout_is_threshold")
        }
        if let rejection { rules = try RejectionRule.rules(names: rejection, thresholds: rejectionThreshold) }
    }
}
