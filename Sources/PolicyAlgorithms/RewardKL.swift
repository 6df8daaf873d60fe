public import TensorCore

/// KL in the reward: each answer token's score less coefficient · KL(policy ‖ reference).
///
/// Source: verl `ray_trainer.apply_kl_penalty`.
public struct RewardKL: Sendable, Hashable {
    public var estimator: KLEstimator
    public init(estimator: KLEstimator) { self.estimator = estimator }

    public struct Result {
        /// Float32 `[B, L]`.
        public let tokenLevelRewards: Tensor
        /// The mean over answers of each one's mean KL (`actor/reward_kl_penalty`).
        public let kl: Double
        /// What was applied (`actor/reward_kl_penalty_coeff`), before the controller's update.
        public let coefficient: Double
    }

    /// Applies the controller's coefficient, then gives it the measured KL.
    ///
    /// - Parameters: scores, old and reference log-probabilities and mask float32 `[B, L]`.
    public func callAsFunction(
        scores: Tensor, oldLogProbs: Tensor, refLogProbs: Tensor, mask: Tensor, controller: inout KLController
    ) throws(TorchError) -> Result {
        let kl = try Masked.kept(estimator(oldLogProbs, refLogProbs), mask)
        let coefficient = controller.coefficient
        let rewards = try scores.subtracting(kl.multiplied(by: coefficient))
        let mean = try Masked.rowMean(kl, mask).mean().item()
        controller.update(kl: mean, answers: mask.size(0))
        return Result(tokenLevelRewards: rewards, kl: mean, coefficient: coefficient)
    }
}
