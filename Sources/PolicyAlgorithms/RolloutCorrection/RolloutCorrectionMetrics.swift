internal import TensorCore

/// The figures of one rollout correction, under verl's names (`rollout_corr_helper.compute_is_metrics`, `compute_rs_metrics`,
/// `compute_offpolicy_metrics`). Needs a mask with at least one token.
struct RolloutCorrectionMetrics {
    private(set) var all: [(name: String, value: Tensor)] = []
    let mask: Tensor

    init(mask: Tensor) { self.mask = mask }

    mutating func add(_ name: String, _ value: Tensor) { all.append(("rollout_corr/" + name, value)) }

    // MARK: - Weights

    mutating func addWeights(
        _ weights: Tensor, raw: Tensor, logRatio: Tensor, level: RolloutCorrection.Level, bounds: RatioBounds
    ) throws {
        let lower = bounds.lower ?? 1 / bounds.upper, upper = bounds.upper
        add("rollout_is_mean", try Masked.mean(weights, mask))
        switch level {
        case .token:
            add("rollout_is_ratio_fraction_high", try fraction(raw.greater(than: upper)))
            add("rollout_is_ratio_fraction_low", try fraction(raw.less(than: lower)))
            add("rollout_is_max", try extreme(weights, isMax: true))
            add("rollout_is_min", try extreme(weights, isMax: false))
        case .sequence:
            // Of the products before any cut, rows without tokens included (their product is 1).
            let sums_B = try Masked.rowSum(logRatio, mask)
            let thresholds = try Tensor([Float(upper), Float(lower)], device: mask.device).log()
            add("rollout_is_max", try sums_B.max().clamped(max: RolloutCorrection.safetyBound).exp())
            add("rollout_is_min", try sums_B.min().exp())
            add("rollout_is_ratio_fraction_high", try Self.share(sums_B.greater(than: thresholds.selected(0, 0))))
            add("rollout_is_ratio_fraction_low", try Self.share(sums_B.less(than: thresholds.selected(0, 1))))
        }

        let clamped = try weights.clamped(min: 0, max: upper)
        add("rollout_is_std", try deviation(clamped))
        let normalized = try clamped.divided(by: Masked.mean(clamped, mask).adding(1e-8))
        add("rollout_is_eff_sample_size", try Masked.mean(normalized.squared(), mask).reciprocal())

        let means_B = try Masked.rowMean(weights, mask), rawMeans_B = try Masked.rowMean(raw, mask)
        try addRows("rollout_is", means_B, centre: 1)
        add("rollout_is_seq_fraction_high", try Self.share(rawMeans_B.greater(than: upper)))
        add("rollout_is_seq_fraction_low", try Self.share(rawMeans_B.less(than: lower)))
        if bounds.lower != nil {
            add("rollout_is_oob_ratio", try fraction(raw.less(than: lower).logicalOr(raw.greater(than: upper))))
        }
    }

    // MARK: - Rejection

    mutating func addRejection(_ rule: RejectionRule, _ verdict: RejectionVerdict) throws {
        let prefix = "rollout_rs_" + rule.name
        let isSequence_B = try mask.sum(-1).greater(than: 0)
        let byRow = try verdict.byRow.maskedSelect(isSequence_B)
        let values = verdict.measure
        let rowsHigh = try Self.share(byRow.greater(than: rule.upper))
        let rowsLow = try rule.lower.map { try Self.share(byRow.less(than: $0)) }
        let zero = try Tensor.zeros([], device: mask.device)

        add(prefix + "_mean", try Masked.mean(values, mask))
        if rule.scope == .token {
            add(prefix + "_max", try extreme(values, isMax: true))
            add(prefix + "_min", try extreme(values, isMax: false))
            add(prefix + "_fraction_high", try fraction(values.greater(than: rule.upper)))
            add(prefix + "_fraction_low", try rule.lower.map { try fraction(values.less(than: $0)) } ?? zero)
        } else {
            add(prefix + "_max", try byRow.max())
            add(prefix + "_min", try byRow.min())
            add(prefix + "_fraction_high", rowsHigh)
            add(prefix + "_fraction_low", rowsLow ?? zero)
        }
        add(prefix + "_std", try deviation(values.clamped(min: rule.lower ?? 0, max: rule.upper)))
        try addRows(prefix, byRow, centre: 0)
        add(prefix + "_seq_fraction_high", rowsHigh)
        if let rowsLow { add(prefix + "_seq_fraction_low", rowsLow) }

        let rejected = try verdict.kept.negated().adding(1)
        add(prefix + "_masked_fraction", try Masked.mean(rejected, mask))
        let hit_B = try Masked.kept(rejected, mask).max(-1)
        add(prefix + "_seq_masked_fraction", try hit_B.sum().divided(by: isSequence_B.to(dtype: .float32).sum()))
    }

    /// Of all rules together; `kept` is within the mask. Answers are counted over all rows, as in verl.
    mutating func addRejected(_ kept: Tensor) throws {
        let rejected = try mask.subtracting(kept)
        add("rollout_rs_masked_fraction", try Masked.mean(rejected, mask))
        add("rollout_rs_seq_masked_fraction", try rejected.max(-1).mean())
    }

    // MARK: - Distance of the policies

    mutating func addDistances(_ logProbs: Tensor, _ rolloutLogProbs: Tensor) throws {
        let logRatio = try logProbs.subtracting(rolloutLogProbs)
        let training_B = try Masked.rowMean(logProbs, mask).negated()
        let rollout_B = try Masked.rowMean(rolloutLogProbs, mask).negated()
        let difference_B = try training_B.subtracting(rollout_B)
        let bound = RolloutCorrection.safetyBound
        add("training_ppl", try training_B.exp().mean())
        add("training_log_ppl", try training_B.mean())
        add("kl", try Masked.mean(logRatio.negated(), mask))
        add("k3_kl", try Masked.mean(logRatio.exp().subtracting(logRatio).subtracting(1), mask))
        add("rollout_ppl", try rollout_B.exp().mean())
        add("rollout_log_ppl", try rollout_B.mean())
        add("log_ppl_diff", try difference_B.mean())
        add("log_ppl_abs_diff", try difference_B.abs().mean())
        add("log_ppl_diff_max", try difference_B.max())
        add("log_ppl_diff_min", try difference_B.min())
        add("ppl_ratio", try difference_B.exp().mean())
        let squared = try logRatio.clamped(min: -bound, max: bound).exp().squared()
        add("chi2_token", try Masked.mean(squared, mask).subtracting(1))
        let sums_B = try Masked.rowSum(logRatio, mask).clamped(min: -bound, max: bound)
        add("chi2_seq", try sums_B.multiplied(by: 2).exp().mean().subtracting(1))
    }

    // MARK: - Parts

    private mutating func addRows(_ prefix: String, _ values_B: Tensor, centre: Double) throws {
        add(prefix + "_seq_mean", try values_B.mean())
        add(
            prefix + "_seq_std",
            values_B.count > 1 ? try values_B.standardDeviation() : try Tensor.zeros([], device: mask.device))
        add(prefix + "_seq_max", try values_B.max())
        add(prefix + "_seq_min", try values_B.min())
        add(prefix + "_seq_max_deviation", try values_B.subtracting(centre).abs().max())
    }

    private func fraction(_ condition: Tensor) throws(TorchError) -> Tensor {
        try Masked.mean(condition.to(dtype: .float32), mask)
    }

    private static func share(_ condition_B: Tensor) throws(TorchError) -> Tensor {
        try condition_B.to(dtype: .float32).mean()
    }

    private func extreme(_ values: Tensor, isMax: Bool) throws(TorchError) -> Tensor {
        let isOutside = try mask.lessOrEqual(to: 0)
        return isMax
            ? try values.maskedFill(isOutside, -.infinity).max() : try values.maskedFill(isOutside, .infinity).min()
    }

    /// Biased, over the mask.
    private func deviation(_ values: Tensor) throws(TorchError) -> Tensor {
        try Masked.mean(values.squared(), mask).subtracting(Masked.mean(values, mask).squared()).clamped(min: 0)
            .squareRoot()
    }
}
