internal import TensorCore

/// Generalized advantage estimation (Schulman et al. 2015) over answer tokens: positions outside the mask (a tool's words between
/// turns) pass the next value and the running advantage on unchanged. Returns are formed before the advantages are whitened;
/// advantages are not zeroed outside the mask.
///
/// Source: verl `core_algos.compute_gae_advantage_return`.
public struct GAEAdvantage: AdvantageEstimator {
    public var gamma, lambda: Double

    public init(gamma: Double = 1, lambda: Double = 1) {
        self.gamma = gamma
        self.lambda = lambda
    }

    /// - Throws: ``AlgorithmError`` (`missingInput`) without values; (`tooFew`) for a batch of fewer than two answer tokens.
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let valueTensor = try inputs.values.required("values", by: "gae", "run a critic")
        let rewards = try HostMatrix(inputs.tokenLevelRewards), values = try HostMatrix(valueTensor)
        let mask = try HostMatrix(inputs.responseMask)
        var advantages = HostMatrix(zeros: rewards)
        for row in 0..<rewards.rows {
            var nextValue = 0.0, running = 0.0
            for column in stride(from: rewards.width - 1, through: 0, by: -1) {
                if mask[row, column] != 0 {
                    let delta = rewards[row, column] + gamma * nextValue - values[row, column]
                    running = delta + gamma * lambda * running
                    nextValue = values[row, column]
                }
                advantages[row, column] = running
            }
        }
        let tensor = try advantages.tensor(like: inputs.responseMask)
        return Advantages(
            advantages: try Masked.whitened(tensor, inputs.responseMask), returns: try tensor.adding(valueTensor))
    }
}
