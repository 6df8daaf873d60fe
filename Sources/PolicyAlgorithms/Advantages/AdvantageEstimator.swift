public import TensorCore

/// A batch of scored answers. What is nil is needed only by the estimators that say so.
public struct AdvantageInputs {
    /// float32 `[B, L]`; an outcome reward stands at one token of its row.
    public var tokenLevelRewards: Tensor
    /// 0/1 float32 `[B, L]`
    public var responseMask: Tensor
    /// Answers to one prompt have one id.
    public var groups: [Int]
    /// The critic's values of each position, float32 `[B, L]` (gae).
    public var values: Tensor?
    /// The score of each prompt's greedy answer, one a row (remax).
    public var rewardBaselines: [Double]?
    /// The scores of each reward component, `[components][B]` (gdpo); nil takes the rows' whole scores as the only one.
    public var rewardComponents: [[Double]]?
    /// Log-probabilities of the answers' tokens and Σπ² over the vocabulary, float32 `[B, L]` (the optimal token baselines).
    public var oldLogProbs, sumPiSquared: Tensor?
    /// Weights of rollout correction, float32 `[B, L]` (the optimal token baselines, optional there too).
    public var rolloutWeights: Tensor?

    public init(
        tokenLevelRewards: Tensor, responseMask: Tensor, groups: [Int], values: Tensor? = nil,
        rewardBaselines: [Double]? = nil, rewardComponents: [[Double]]? = nil, oldLogProbs: Tensor? = nil,
        sumPiSquared: Tensor? = nil, rolloutWeights: Tensor? = nil
    ) {
        self.tokenLevelRewards = tokenLevelRewards
        self.responseMask = responseMask
        self.groups = groups
        self.values = values
        self.rewardBaselines = rewardBaselines
        self.rewardComponents = rewardComponents
        self.oldLogProbs = oldLogProbs
        self.sumPiSquared = sumPiSquared
        self.rolloutWeights = rolloutWeights
    }

    /// Each row's outcome: the sum of its rewards, masked positions included, as verl has it.
    public func scores() throws(TorchError) -> [Double] { try tokenLevelRewards.sum(-1).values(Double.self) }

    /// `values` (one a row) at every answer token, 0 elsewhere: float32 `[B, L]`.
    public func broadcast(_ values: [Double]) throws(TorchError) -> Tensor {
        let column = try Tensor(values.map(Float.init), shape: [values.count, 1], device: responseMask.device)
        return try responseMask.multiplied(by: column)
    }

    /// ``rowsByGroup``, where there is one id a row.
    ///
    /// - Throws: ``AlgorithmError`` (`mismatch`) otherwise.
    func checkedGroups() throws -> [[Int]] {
        guard groups.count == responseMask.size(0) else {
            throw AlgorithmError(
                .mismatch, "adv_estimator",
                "\(groups.count) group ids for \(responseMask.size(0)) answers; give one an answer")
        }
        return rowsByGroup
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
    /// Where the return is the advantage, as for outcome rewards.
    init(both advantages: Tensor) { self.init(advantages: advantages, returns: advantages) }
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
    /// The weight of each reward component of GDPO, in the order of ``AdvantageInputs/rewardComponents``; nil for all 1.
    public var componentWeights: [Double]?
    /// GPG's divisor of the advantages (`f_norm`).
    public var gpgNorm: Double
    /// Whether the optimal token baselines give no baseline to the part of a group's longest answer that no other reaches.
    public var handlesZeroTail: Bool
    public init(
        normalizesByStd: Bool = true, gamma: Double = 1, lambda: Double = 1, componentWeights: [Double]? = nil,
        gpgNorm: Double = 1, handlesZeroTail: Bool = true
    ) {
        self.normalizesByStd = normalizesByStd
        self.gamma = gamma
        self.lambda = lambda
        self.componentWeights = componentWeights
        self.gpgNorm = gpgNorm
        self.handlesZeroTail = handlesZeroTail
    }
}

/// Every estimator by its configuration name.
public enum AdvantageEstimators {
    public static let all: [String: @Sendable (AdvantageSettings) -> any AdvantageEstimator] = [
        "gae": { GAEAdvantage(gamma: $0.gamma, lambda: $0.lambda) },
        "gdpo": { GDPOAdvantage(weights: $0.componentWeights, normalizesByStd: $0.normalizesByStd) },
        "gpg": { GPGAdvantage(norm: $0.gpgNorm) },
        "grpo": { GRPOAdvantage(normalizesByStd: $0.normalizesByStd) },
        "grpo_passk": { PassKAdvantage(normalizesByStd: $0.normalizesByStd) },
        "grpo_vectorized": { GRPOAdvantage(normalizesByStd: $0.normalizesByStd) },
        "opo": { _ in OPOAdvantage() },
        "optimal_token_baseline": { OptimalTokenBaseline(handlesZeroTail: $0.handlesZeroTail) },
        "reinforce_plus_plus": { ReinforcePlusPlusAdvantage(gamma: $0.gamma) },
        "reinforce_plus_plus_baseline": { _ in ReinforcePlusPlusBaselineAdvantage() },
        "remax": { _ in ReMaxAdvantage() },
        "rloo": { _ in RLOOAdvantage(singleton: .score) },
        "rloo_vectorized": { _ in RLOOAdvantage(singleton: .zero) },
        "tir_optimal_token_baseline": { OptimalTokenBaseline(handlesZeroTail: $0.handlesZeroTail, isMultiTurn: true) },
    ]
}
