internal import TensorCore

/// Group-wise decoupled advantages (GDPO): each reward component is normalised within its group alone, the weighted sum is
/// whitened over the batch's answer tokens.
///
/// Source: verl `core_algos.compute_gdpo_outcome_advantage`.
public struct GDPOAdvantage: AdvantageEstimator {
    /// One a component; nil for all 1.
    public var weights: [Double]?
    public var normalizesByStd: Bool
    public var epsilon: Double

    public init(weights: [Double]? = nil, normalizesByStd: Bool = true, epsilon: Double = 1e-6) {
        self.weights = weights
        self.normalizesByStd = normalizesByStd
        self.epsilon = epsilon
    }

    /// - Throws: ``AlgorithmError`` (`mismatch`) when components, weights and rows differ in number; (`tooFew`) for a batch of
    ///   fewer than two answer tokens.
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let components = try inputs.rewardComponents ?? [inputs.scores()]
        let weights = weights ?? Array(repeating: 1, count: components.count)
        guard weights.count == components.count, components.allSatisfy({ $0.count == inputs.groups.count }) else {
            throw AlgorithmError(
                .mismatch, "gdpo",
                "\(weights.count) weights for \(components.count) components of \(components.map(\.count)) scores for "
                    + "\(inputs.groups.count) answers; give one weight a component and one score an answer")
        }
        let groups = try inputs.checkedGroups()
        let normalize = GRPOAdvantage(normalizesByStd: normalizesByStd, epsilon: epsilon)
        var sums = [Double](repeating: 0, count: inputs.groups.count)
        for (weight, scores) in zip(weights, components) {
            for (row, value) in normalize.normalized(scores, groups).enumerated() { sums[row] += weight * value }
        }
        let advantages = try inputs.broadcast(sums)
        return Advantages(
            both: try Masked.whitened(advantages, inputs.responseMask).multiplied(by: inputs.responseMask))
    }
}
