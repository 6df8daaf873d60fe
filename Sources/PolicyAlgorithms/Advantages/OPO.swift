internal import TensorCore

/// On-policy optimal baseline (Hao et al. 2025): scores against their group's mean weighted by answer length.
///
/// Source: verl `core_algos.compute_opo_outcome_advantage`.
public struct OPOAdvantage: AdvantageEstimator {
    public init() {}

    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        var scores = try inputs.scores()
        let lengths = try inputs.responseMask.sum(-1).values(Double.self)
        for rows in try inputs.checkedGroups() where rows.count > 1 {
            let total = rows.reduce(0) { $0 + lengths[$1] }
            // A group without a token has no advantage to place.
            guard total > 0 else { continue }
            let baseline = rows.reduce(0) { $0 + lengths[$1] * scores[$1] } / total
            for row in rows { scores[row] -= baseline }
        }
        return Advantages(both: try inputs.broadcast(scores))
    }
}
