internal import TensorCore

/// Pass@k advantages (Chen et al. 2025): the best answer of a group gets its lead over the second best, the others nothing.
///
/// Source: verl `core_algos.compute_grpo_passk_outcome_advantage`.
public struct PassKAdvantage: AdvantageEstimator {
    public var normalizesByStd: Bool
    public var epsilon: Double

    public init(normalizesByStd: Bool = true, epsilon: Double = 1e-6) {
        self.normalizesByStd = normalizesByStd
        self.epsilon = epsilon
    }

    /// - Throws: ``AlgorithmError`` (`tooFew`) for a group of one, where there is no second best.
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let scores = try inputs.scores()
        var result = [Double](repeating: 0, count: scores.count)
        for rows in try inputs.checkedGroups() {
            let ranked = rows.sorted { scores[$0] > scores[$1] }
            guard ranked.count > 1 else {
                throw AlgorithmError(
                    .tooFew, "grpo_passk",
                    "group \(inputs.groups[rows[0]]) has 1 answer and needs at least 2; set rollout.n to 2 or more")
            }
            let scale = normalizesByStd ? 1 / (GroupStatistics(rows.map { scores[$0] }).deviation + epsilon) : 1
            result[ranked[0]] = (scores[ranked[0]] - scores[ranked[1]]) * scale
        }
        return Advantages(both: try inputs.broadcast(result))
    }
}
