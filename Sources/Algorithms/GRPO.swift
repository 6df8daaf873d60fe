public import TensorCore

/// Group-relative advantages (Shao et al. 2024, DeepSeekMath): each answer's score against its group's mean, over the group's
/// standard deviation unless switched off (Liu et al. 2025, Dr. GRPO). A group of one has mean 0 and deviation 1.
///
/// Source: verl `core_algos.compute_grpo_outcome_advantage`.
public struct GRPOAdvantage: AdvantageEstimator {
    public var normalizesByStd: Bool
    public var epsilon: Double

    public init(normalizesByStd: Bool = true, epsilon: Double = 1e-6) {
        self.normalizesByStd = normalizesByStd
        self.epsilon = epsilon
    }

    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        var scores = try inputs.scores()
        for rows in inputs.rowsByGroup where rows.count > 1 {
            let count = Double(rows.count)
            let mean = rows.reduce(0) { $0 + scores[$1] } / count
            let variance = rows.reduce(0) { $0 + (scores[$1] - mean) * (scores[$1] - mean) } / (count - 1)
            let scale = normalizesByStd ? 1 / (variance.squareRoot() + epsilon) : 1
            for row in rows { scores[row] = (scores[row] - mean) * scale }
        }
        if normalizesByStd {
            for rows in inputs.rowsByGroup where rows.count == 1 { scores[rows[0]] /= 1 + epsilon }
        }
        let advantages = try inputs.broadcast(scores)
        return Advantages(advantages: advantages, returns: advantages)
    }
}
