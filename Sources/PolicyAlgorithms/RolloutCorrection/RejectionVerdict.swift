internal import TensorCore

/// What a rule found.
struct RejectionVerdict {
    /// The measure of each token, or its answer's at every position: `[B, L]`.
    let measure: Tensor
    /// The measure of each answer, of a token rule the mean over its tokens: `[B]`.
    let byRow: Tensor
    /// 0/1 float32 `[B, L]`, not confined to the mask.
    let kept: Tensor
}

extension RejectionRule {
    /// - Parameters: log ρ and mask `[B, L]`.
    func callAsFunction(_ logRatio: Tensor, _ mask: Tensor) throws(TorchError) -> RejectionVerdict {
        let bound = RolloutCorrection.safetyBound
        let safe = try logRatio.clamped(min: -bound, max: bound)
        let byToken =
            switch measure {
            case .k1: try safe.negated()
            case .k2: try safe.squared().multiplied(by: 0.5)
            case .k3: try safe.exp().subtracting(1).subtracting(safe)
            }
        let byRow: Tensor, values: Tensor
        switch scope {
        case .token, .sequenceMean: byRow = try Masked.rowMean(byToken, mask)
        case .sequenceSum: byRow = try Masked.rowSum(byToken, mask)
        // k2 and k3 are never negative: 0 stands for an answer without tokens too.
        case .sequenceMax: byRow = try Masked.kept(byToken, mask).max(-1)
        }
        values = scope == .token ? byToken : try byRow.unsqueezed(-1).expanded(mask.shape)
        var isKept = try values.lessOrEqual(to: upper)
        if let lower { isKept = try isKept.logicalAnd(values.greaterOrEqual(to: lower)) }
        return RejectionVerdict(measure: values, byRow: byRow, kept: try isKept.to(dtype: .float32))
    }
}
