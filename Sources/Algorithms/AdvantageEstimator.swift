public import TensorCore

/// A batch of scored answers.
public struct AdvantageInputs {
    /// float32 `[B, L]`; an outcome reward stands at one token of its row.
    public var tokenLevelRewards: Tensor
    /// 0/1 float32 `[B, L]`
    public var responseMask: Tensor
    /// Answers to one prompt have one id.
    public var groups: [Int]

    public init(tokenLevelRewards: Tensor, responseMask: Tensor, groups: [Int]) {
        self.tokenLevelRewards = tokenLevelRewards
        self.responseMask = responseMask
        self.groups = groups
    }

    /// Each row's outcome: the sum of its rewards, masked positions included, as verl has it.
    public func scores() throws(TorchError) -> [Double] { try tokenLevelRewards.sum(-1).values(Double.self) }

    /// `values` (one a row) at every answer token, 0 elsewhere: float32 `[B, L]`.
    public func broadcast(_ values: [Double]) throws(TorchError) -> Tensor {
        let column = try Tensor(values.map(Float.init), shape: [values.count, 1], device: responseMask.device)
        return try responseMask.multiplied(by: column)
    }

    /// Row indices of each group, in order of first appearance.
    public var rowsByGroup: [[Int]] {
        var order: [Int] = [], rows: [Int: [Int]] = [:]
        for (row, group) in groups.enumerated() {
            if rows[group] == nil { order.append(group) }
            rows[group, default: []].append(row)
        }
        return order.map { rows[$0, default: []] }
    }
}

/// Per-token advantages and returns, float32 `[B, L]`.
public struct Advantages {
    public var advantages, returns: Tensor
    public init(advantages: Tensor, returns: Tensor) {
        self.advantages = advantages
        self.returns = returns
    }
}

/// Turns rewards into advantages. Adding one: a file with a conforming struct, and a line in ``AdvantageEstimators/all``.
public protocol AdvantageEstimator: Sendable {
    func callAsFunction(_ inputs: AdvantageInputs) throws -> Advantages
}

/// The numbers that estimators may use, from the configuration.
public struct AdvantageSettings: Sendable, Hashable {
    /// `algorithm.norm_adv_by_std_in_grpo`
    public var normalizesByStd: Bool
    public var gamma, lambda: Double
    public init(normalizesByStd: Bool = true, gamma: Double = 1, lambda: Double = 1) {
        self.normalizesByStd = normalizesByStd
        self.gamma = gamma
        self.lambda = lambda
    }
}

/// Every estimator by its configuration name.
public enum AdvantageEstimators {
    public static let all: [String: @Sendable (AdvantageSettings) -> any AdvantageEstimator] = [
        "grpo": { GRPOAdvantage(normalizesByStd: $0.normalizesByStd) }
    ]
}
