import Config
import Flow
import OrderedCollections
import PolicyAlgorithms
import Telemetry
import TensorCore
import TrainingEngine

/// From a batch of scored answers to what is learned of them: the KL penalty in the reward, rollout correction, advantages and
/// returns. Of the whole batch at once and on the host, so nothing in it depends on micro-batches or ranks.
struct BatchEstimation {
    private let algorithm: AlgorithmSettings
    private let estimator: any AdvantageEstimator
    /// Done here, and not by the loss itself.
    private let correction: RolloutCorrection?
    private let rewardKL: RewardKL?
    /// gdpo: the details that are the reward's components.
    private let components: [String]?

    /// - Parameter rewardWeights: the parts of a weighted reward.
    init(
        _ algorithm: AlgorithmSettings, rewardWeights: OrderedDictionary<String, Double>, bypassesOldLogProbs: Bool
    ) throws {
        guard let make = AdvantageEstimators.all[algorithm.advantageEstimator] else {
            throw WorkerError(
                .badSetting, "algorithm.adv_estimator: no estimator is called '\(algorithm.advantageEstimator)'")
        }
        self.algorithm = algorithm
        let keys = algorithm.gdpoRewardKeys.isEmpty ? Array(rewardWeights.keys) : algorithm.gdpoRewardKeys
        components = algorithm.advantageEstimator == "gdpo" && !keys.isEmpty ? keys : nil
        var weights: [Double]? = algorithm.gdpoRewardWeights
        if algorithm.gdpoRewardWeights.isEmpty {
            weights = algorithm.gdpoRewardKeys.isEmpty ? keys.map { rewardWeights[$0] ?? 1 } : nil
        }
        estimator = make(
            AdvantageSettings(
                normalizesByStd: algorithm.normAdvantageByStd, gamma: algorithm.gamma, lambda: algorithm.lambda,
                componentWeights: components == nil ? nil : weights, gpgNorm: algorithm.gpgNorm))
        let settings = algorithm.rolloutCorrection
        correction = settings.isOn && !bypassesOldLogProbs ? try RolloutCorrection(settings) : nil
        rewardKL = algorithm.useKLInReward ? RewardKL(estimator: try .init(algorithm.klPenalty)) : nil
    }

    func callAsFunction(_ trajectories: [Trajectory], klCoefficient: Double?) throws -> AdvantageEstimate {
        let padding = Padding(lengths: trajectories.map(\.response.count))
        var estimate = AdvantageEstimate(advantages: [])
        func tensor(_ name: String, _ values: (Trajectory) -> [Float]?) throws -> Tensor? {
            let rows = trajectories.compactMap(values)
            return rows.count == trajectories.count ? try padding.pad(rows, device: .cpu) : nil
        }
        let policy = try padding.pad(trajectories.map { $0.oldLogProbs ?? $0.rolloutLogProbs }, device: .cpu)
        var mask = try padding.pad(trajectories.map(\.maskValues), device: .cpu)
        var rewards = try padding.pad(trajectories.map(\.tokenScores), device: .cpu)

        if let rewardKL, let reference = try tensor("refLogProbs", \.refLogProbs) {
            var controller = try controller(klCoefficient)
            let result = try rewardKL(
                scores: rewards, oldLogProbs: policy, refLogProbs: reference, mask: mask, controller: &controller)
            rewards = result.tokenLevelRewards
            estimate.klCoefficient = controller.coefficient
            estimate.metrics["actor/reward_kl_penalty"] = result.kl
            estimate.metrics["actor/reward_kl_penalty_coeff"] = result.coefficient
            try estimate.metrics.summarize("critic/rewards", rewards.sum(-1).values(Double.self))
        }

        if algorithm.masksTruncated {
            let isCut = trajectories.map(\.isTruncated)
            estimate.metrics["actor/masked_truncated"] = Double(isCut.count { $0 })
            if isCut.contains(true) {
                let kept = isCut.map { $0 ? Float(0) : 1 }
                mask = try mask.multiplied(by: Tensor(kept, shape: [kept.count, 1]))
                estimate.responseMasks = try masks(mask, padding)
            }
        }
        var weights: Tensor?
        if let correction, let rollout = try tensor("rolloutLogProbs", \.rolloutLogProbs) {
            let result = try correction(logProbs: policy, rolloutLogProbs: rollout, mask: mask)
            for metric in result.metrics {
                estimate.metrics[try MetricName(metric.name)] = try metric.value.item()
            }
            weights = result.weights
            estimate.importanceWeights = try weights.map(padding.rows)
            if !correction.rules.isEmpty {
                mask = result.mask
                estimate.responseMasks = try masks(mask, padding)
            }
        }

        let values = try tensor("values", \.values)
        // Nothing can be whitened, or learned, where nothing is left.
        guard try mask.sum().item() > 1 else {
            estimate.advantages = trajectories.map { [Float](repeating: 0, count: $0.response.count) }
            estimate.returns = trajectories.compactMap(\.values).count == trajectories.count ? estimate.advantages : nil
            estimate.responseMasks = trajectories.map { [Bool](repeating: false, count: $0.response.count) }
            return estimate
        }
        let result = try estimator(
            AdvantageInputs(
                tokenLevelRewards: rewards, responseMask: mask, groups: trajectories.map(\.prompt.group),
                values: values, rewardBaselines: baselines(trajectories),
                rewardComponents: components(of: trajectories), oldLogProbs: tensor("oldLogProbs", \.oldLogProbs),
                sumPiSquared: tensor("sumPiSquared", \.sumPiSquared), rolloutWeights: weights))
        estimate.advantages = try padding.rows(result.advantages)
        if let values {
            estimate.returns = try padding.rows(result.returns)
            try estimate.metrics.describe(values: values, returns: result.returns, mask: mask)
        }
        return estimate
    }

    private func controller(_ coefficient: Double?) throws -> KLController {
        let control = algorithm.klControl
        return try KLController(
            coefficient: coefficient ?? control.klCoefficient,
            mode: control.type == .adaptive
                ? .adaptive(target: control.targetKL, horizon: control.horizon) : .fixed)
    }

    private func masks(_ mask: Tensor, _ padding: Padding) throws -> [[Bool]] {
        try padding.rows(mask).map { $0.map { $0 > 0 } }
    }

    private func baselines(_ trajectories: [Trajectory]) -> [Double]? {
        let scores = trajectories.compactMap(\.baselineScore)
        return scores.count == trajectories.count ? scores : nil
    }

    private func components(of trajectories: [Trajectory]) throws -> [[Double]]? {
        try components?.map { name in
            try trajectories.map { trajectory in
                guard let score = trajectory.scoreDetails[name] else {
                    let known = trajectory.scoreDetails.keys.sorted().joined(separator: ", ")
                    throw WorkerError(
                        .badSetting,
                        "algorithm.gdpo_reward_keys: a score has no detail '\(name)', only \(known.isEmpty ? "none" : known); "
                            + "give names of the reward's details")
                }
                return score
            }
        }
    }
}

extension Trajectory {
    /// What was earned at each token: all at the last one, unless it is known better.
    fileprivate var tokenScores: [Float] {
        if let tokenRewards { return tokenRewards }
        var row = [Float](repeating: 0, count: response.count)
        if !row.isEmpty { row[row.count - 1] = Float(score ?? 0) }
        return row
    }
}

extension PhaseMetrics {
    fileprivate mutating func summarize(_ name: String, _ values: [Double]) throws {
        guard let least = values.min(), let most = values.max() else { return }
        self[try MetricName(name + "/mean")] = values.reduce(0, +) / Double(values.count)
        self[try MetricName(name + "/max")] = most
        self[try MetricName(name + "/min")] = least
    }

    /// How values and returns lie, and what share of the returns' variance the values explain: verl's `compute_data_metrics`.
    fileprivate mutating func describe(values: Tensor, returns: Tensor, mask: Tensor) throws {
        let isToken = try mask.greater(than: 0)
        let found = try values.maskedSelect(isToken).values(Double.self)
        let wanted = try returns.maskedSelect(isToken).values(Double.self)
        try summarize("critic/values", found)
        try summarize("critic/returns", wanted)
        func variance(_ values: [Double]) -> Double {
            let mean = values.reduce(0, +) / Double(values.count)
            return values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(Swift.max(1, values.count - 1))
        }
        self["critic/vf_explained_var"] = 1 - variance(zip(wanted, found).map { $0 - $1 }) / (variance(wanted) + 1e-5)
    }
}
