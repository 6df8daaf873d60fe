internal import TensorCore

/// REINFORCE++ (Hu 2025): discounted returns over answer tokens, whitened over the batch. Positions outside the mask carry the
/// running return on.
///
/// Source: verl `core_algos.compute_reinforce_plus_plus_outcome_advantage`.
public struct ReinforcePlusPlusAdvantage: AdvantageEstimator {
    public var gamma: Double
    public init(gamma: Double = 1) { self.gamma = gamma }

    /// - Throws: ``AlgorithmError`` (`tooFew`) for a batch of fewer than two answer tokens.
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let rewards = try HostMatrix(inputs.tokenLevelRewards), mask = try HostMatrix(inputs.responseMask)
        var returns = HostMatrix(zeros: rewards)
        for row in 0..<rewards.rows {
            var running = 0.0
            for column in stride(from: rewards.width - 1, through: 0, by: -1) where mask[row, column] != 0 {
                running = rewards[row, column] + gamma * running
                returns[row, column] = running
            }
        }
        let tensor = try returns.tensor(like: inputs.responseMask)
        let advantages = try Masked.whitened(tensor, inputs.responseMask).multiplied(by: inputs.responseMask)
        return Advantages(advantages: advantages, returns: tensor)
    }
}

/// REINFORCE++ with a group baseline: scores against their group's mean, whitened over the batch's answer tokens.
///
/// Source: verl `core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage`.
public struct ReinforcePlusPlusBaselineAdvantage: AdvantageEstimator {
    public init() {}

    /// - Throws: ``AlgorithmError`` (`tooFew`) for a batch of fewer than two answer tokens.
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let centred = try GRPOAdvantage(normalizesByStd: false).normalized(inputs.scores(), inputs.checkedGroups())
        let whitened = try Masked.whitened(inputs.broadcast(centred), inputs.responseMask)
        return Advantages(both: try whitened.multiplied(by: inputs.responseMask))
    }
}
