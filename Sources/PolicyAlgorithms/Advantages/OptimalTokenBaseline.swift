internal import TensorCore

/// The optimal token baseline: at each position a group's returns are averaged with weights W_t, the energy that the answer's
/// score function has gathered up to there, Σ_{j ≤ t} (1 − 2 π_j + Σ π²), times the squared weight of rollout correction.
///
/// The single-turn form aligns a group's answers by padded position, the multi-turn one by the number of answer tokens before, so
/// that tools' words of different length between turns do not shift them.
///
/// Source: verl `core_algos.compute_optimal_token_baseline_advantage` and
/// `compute_multi_turn_optimal_token_baseline_advantage`.
public struct OptimalTokenBaseline: AdvantageEstimator {
    /// No baseline where only a group's longest answer is left: it would be that answer's own return.
    public var handlesZeroTail: Bool
    public var isMultiTurn: Bool
    public var epsilon: Double

    public init(handlesZeroTail: Bool = true, isMultiTurn: Bool = false, epsilon: Double = 1e-8) {
        self.handlesZeroTail = handlesZeroTail
        self.isMultiTurn = isMultiTurn
        self.epsilon = epsilon
    }

    /// - Throws: ``AlgorithmError`` (`missingInput`) without old log-probabilities or Σπ².
    public func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages {
        let name = isMultiTurn ? "tir_optimal_token_baseline" : "optimal_token_baseline"
        let probabilities = try HostMatrix(inputs.oldLogProbs.required("oldLogProbs", by: name, "record them").exp())
        let squares = try HostMatrix(
            inputs.sumPiSquared.required("sumPiSquared", by: name, "compute it with the old log-probabilities"))
        let weights = try inputs.rolloutWeights.map { try HostMatrix($0) }
        let mask = try HostMatrix(inputs.responseMask)
        let returns = try HostMatrix(inputs.tokenLevelRewards).toGo(mask)

        var energy = HostMatrix(zeros: mask)
        for row in 0..<mask.rows {
            var running = 0.0
            for column in 0..<mask.width {
                if mask[row, column] != 0 {
                    let weight = weights?[row, column] ?? 1
                    let step = 1 - 2 * probabilities[row, column] + squares[row, column]
                    running += step * weight * weight
                }
                energy[row, column] = running
            }
        }

        // The answer tokens' columns of each row, and each row's place in a group's alignment for one of them.
        let columns = (0..<mask.rows).map { row in (0..<mask.width).filter { mask[row, $0] != 0 } }
        var advantages = HostMatrix(zeros: mask)
        for group in try inputs.checkedGroups() {
            let rows = isMultiTurn ? group.filter { !columns[$0].isEmpty } : group
            var numerator = [Double](repeating: 0, count: mask.width)
            var denominator = [Double](repeating: epsilon, count: mask.width)
            for row in rows {
                for (index, column) in columns[row].enumerated() {
                    let position = isMultiTurn ? index : column
                    numerator[position] += returns[row, column] * energy[row, column]
                    denominator[position] += energy[row, column]
                }
            }
            let tail = zeroTail(rows, columns.map(\.count))
            for row in rows {
                for (index, column) in columns[row].enumerated() {
                    let position = isMultiTurn ? index : column
                    let hasNone = rows.count == 1 || (row == tail?.row && position >= tail?.start ?? 0)
                    let baseline = hasNone ? 0 : numerator[position] / denominator[position]
                    advantages[row, column] = returns[row, column] - baseline
                }
            }
        }
        return Advantages(
            advantages: try advantages.tensor(like: inputs.responseMask),
            returns: try returns.tensor(like: inputs.responseMask))
    }

    /// The row that alone is longest, and the length of the second longest, which is taken as a position also when there are gaps
    /// inside the mask.
    private func zeroTail(_ rows: [Int], _ lengths: [Int]) -> (row: Int, start: Int)? {
        guard handlesZeroTail, rows.count > 1 else { return nil }
        let ranked = rows.sorted { lengths[$0] > lengths[$1] }
        guard lengths[ranked[0]] > lengths[ranked[1]] else { return nil }
        return (ranked[0], lengths[ranked[1]])
    }
}
