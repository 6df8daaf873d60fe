/// The coefficient of the KL penalty in the reward: fixed, or steered so that the KL comes to a target (Ziegler et al. 2019).
///
/// Source: verl `core_algos.FixedKLController` and `AdaptiveKLController`. Codable: a resumed run goes on from its coefficient.
public struct KLController: Sendable, Hashable, Codable {
    public enum Mode: Sendable, Hashable, Codable {
        case fixed
        /// `horizon` is in answers.
        case adaptive(target: Double, horizon: Double)
    }

    public private(set) var coefficient: Double
    public let mode: Mode

    /// - Throws: ``AlgorithmError`` (`badSetting`) where an adaptive target or horizon is not positive.
    public init(coefficient: Double, mode: Mode = .fixed) throws(AlgorithmError) {
        if case .adaptive(let target, let horizon) = mode, !(target > 0 && horizon > 0) {
            throw AlgorithmError(
                .badSetting, "algorithm.kl_ctrl",
                "target_kl is \(target) and horizon \(horizon); give positive numbers")
        }
        self.coefficient = coefficient
        self.mode = mode
    }

    /// Takes in the KL measured over `answers` answers.
    public mutating func update(kl: Double, answers: Int) {
        guard case .adaptive(let target, let horizon) = mode else { return }
        let error = min(0.2, max(-0.2, kl / target - 1))
        coefficient *= 1 + error * Double(answers) / horizon
    }
}
