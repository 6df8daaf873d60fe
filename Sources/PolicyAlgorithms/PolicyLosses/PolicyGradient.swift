internal import TensorCore

/// −advantage · log π: REINFORCE (Williams 1992), with rollout correction's weights where given.
///
/// Source: verl `core_algos.compute_policy_loss_reinforce`.
public struct ReinforceLoss: PolicyLoss {
    public init() {}

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        let losses = try arguments.logProbs.multiplied(by: arguments.advantages).negated()
        return try arguments.result(losses) {
            let kl = try arguments.oldLogProbs.subtracting(arguments.logProbs)
            return [("actor/ppo_kl", try arguments.share(kl))]
        }
    }
}

/// −advantage · log π: GPG's loss (Chu et al. 2025), which needs no old log-probabilities.
///
/// Source: verl `core_algos.compute_policy_loss_gpg`.
public struct GPGLoss: PolicyLoss {
    public init() {}

    public func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult {
        try arguments.result(arguments.logProbs.multiplied(by: arguments.advantages).negated()) { [] }
    }
}
