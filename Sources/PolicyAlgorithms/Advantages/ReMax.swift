internal import TensorCore

/// ReMax (Li et al. 2023): the return from each token on against the score of the prompt's greedy answer.
///
/// Source: verl `core_algos.compute_remax_outcome_advantage`.
public struct ReMaxAdvantage: AdvantageEstimator {
    public init() {}

    /// - Throws: ``AlgorithmError`` (`missingInput`) without baselines; (`mismatch`) where they are not one a row.
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let baselines = try inputs.rewardBaselines.required(
            "rewardBaselines", by: "remax", "score one greedy answer a prompt")
        let rewards = try HostMatrix(inputs.tokenLevelRewards)
        guard baselines.count == rewards.rows else {
            throw AlgorithmError(
                .mismatch, "remax", "\(baselines.count) baselines for \(rewards.rows) answers; give one an answer")
        }
        let returns = try rewards.toGo(HostMatrix(inputs.responseMask)).tensor(like: inputs.responseMask)
        return Advantages(advantages: try returns.subtracting(inputs.broadcast(baselines)), returns: returns)
    }
}
