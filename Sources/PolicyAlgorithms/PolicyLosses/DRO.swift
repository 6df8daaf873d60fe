internal import TensorCore

/// Direct reward optimisation (Richemond et al. 2024): −(advantage · log π − β/2 (log π − log π_old)²).
///
/// Source: verl `core_algos.compute_policy_loss_dro`.
public struct DROLoss: PolicyLoss {
    /// The pull towards the old policy acts without advantages too.
    public var vanishesWithoutAdvantage: Bool { false }
    public var beta: Double
    public init(_ settings: PolicyLossSettings) { beta = settings.droBeta }

    /// - Throws: ``AlgorithmError`` (`badSetting`) where β is not positive.
    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        guard beta > 0 else {
            throw AlgorithmError(.badSetting, "dro", "policy_loss.dro_beta is \(beta); give a positive number")
        }
        let logRatio = try arguments.logProbs.subtracting(arguments.oldLogProbs)
        let penalty = try logRatio.squared().multiplied(by: beta / 2)
        let losses = try penalty.subtracting(arguments.logProbs.multiplied(by: arguments.advantages))
        return try arguments.result(losses) { [("actor/ppo_kl", try arguments.share(logRatio.negated()))] }
    }
}
