internal import TensorCore

/// Group-relative advantages (Shao et al. 2024, DeepSeekMath): each answer's score against its group's mean, over the group's
/// standard deviation unless switched off (Liu et al. 2025, Dr. GRPO). A group of one has mean 0 and deviation 1.
///
/// Source: verl `core_algos.compute_grpo_outcome_advantage` and its vectorized form.
public struct GRPOAdvantage: AdvantageEstimator {
    public var normalizesByStd: Bool
    public var epsilon: Double

    public init(normalizesByStd: Bool = true, epsilon: Double = 1e-6) {
        self.normalizesByStd = normalizesByStd
        self.epsilon = epsilon
    }

    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        Advantages(both: try inputs.broadcast(normalized(inputs.scores(), inputs.checkedGroups())))
    }

    /// `scores` (one a row) relative to their groups.
    func normalized(_ scores: [Double], _ groups: [[Int]]) -> [Double] {
        var result = scores
        for rows in groups {
            let group = GroupStatistics(rows.map { scores[$0] })
            let scale = normalizesByStd ? 1 / (group.deviation + epsilon) : 1
            for row in rows { result[row] = (scores[row] - group.mean) * scale }
        }
        return result
    }
}

/// Mean and unbiased standard deviation of a group's scores; of a group of one 0 and 1.
struct GroupStatistics {
    let mean, deviation: Double

    init(_ scores: [Double]) {
        guard scores.count > 1 else {
            (mean, deviation) = (0, 1)
            return
        }
        let mean = scores.reduce(0, +) / Double(scores.count)
        let variance = scores.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(scores.count - 1)
        (self.mean, deviation) = (mean, variance.squareRoot())
    }
}
