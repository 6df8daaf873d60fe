internal import TensorCore

/// Group policy gradient (Chu et al. 2025): scores against their group's mean, scaled up by batch size / number of non-zero
/// scores and divided by a constant.
///
/// Source: verl `core_algos.compute_gpg_outcome_advantage`.
public struct GPGAdvantage: AdvantageEstimator {
    public var norm: Double
    public init(norm: Double = 1) { self.norm = norm }

    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let scores = try inputs.scores()
        let alpha = Double(scores.count) / Double(max(1, scores.count { $0 != 0 }))
        let centred = try GRPOAdvantage(normalizesByStd: false).normalized(scores, inputs.checkedGroups())
        return Advantages(both: try inputs.broadcast(centred.map { alpha * $0 / norm }))
    }
}
