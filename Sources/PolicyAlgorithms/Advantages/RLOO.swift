internal import TensorCore

/// REINFORCE leave-one-out (Ahmadian et al. 2024): each answer's score against the mean of its group's other answers.
///
/// Source: verl `core_algos.compute_rloo_outcome_advantage`, and `compute_rloo_vectorized_outcome_advantage` with `.zero`.
public struct RLOOAdvantage: AdvantageEstimator {
    /// What the only answer of a group gets.
    public enum Singleton: Sendable, Hashable { case score, zero }
    public var singleton: Singleton
    public init(singleton: Singleton = .score) { self.singleton = singleton }

    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let scores = try inputs.scores()
        var result = scores
        for rows in try inputs.checkedGroups() {
            guard rows.count > 1 else {
                if singleton == .zero { result[rows[0]] = 0 }
                continue
            }
            let sum = rows.reduce(0) { $0 + scores[$1] }
            for row in rows { result[row] = scores[row] - (sum - scores[row]) / Double(rows.count - 1) }
        }
        return Advantages(both: try inputs.broadcast(result))
    }
}
