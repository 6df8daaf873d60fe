/// The numbers of single policy losses, beside `actor.policy_loss`.
public struct PolicyLossNumbers: Hashable, Sendable {
    public let clipCovRatio: Double
    public let clipCovLower: Double
    public let clipCovUpper: Double
    public let klCovRatio: Double
    public let klCovCoefficient: Double
    public let tauPositive: Double
    public let tauNegative: Double
    public let droBeta: Double

    /// Each key, and the losses that read it.
    static let readers: [(key: String, losses: [String])] = [
        ("clip_cov_ratio", ["clip_cov"]), ("clip_cov_lb", ["clip_cov"]), ("clip_cov_ub", ["clip_cov"]),
        ("kl_cov_ratio", ["kl_cov"]), ("ppo_kl_coef", ["kl_cov"]), ("tau_pos", ["sapo"]), ("tau_neg", ["sapo"]),
        ("dro_beta", ["dro"]),
    ]

    init(_ section: inout SectionReader) {
        clipCovRatio = section.number(
            "clip_cov_ratio", default: 0.0002, in: .fraction,
            doc: "clip_cov: the share of a mini-batch's tokens that lose their gradient.")
        clipCovLower = section.number(
            "clip_cov_lb", default: 1, in: .any,
            doc: "clip_cov: they are picked among tokens whose covariance is above this,")
        clipCovUpper = section.number("clip_cov_ub", default: 5, in: .any, doc: "and below this.")
        klCovRatio = section.number(
            "kl_cov_ratio", default: 0.0002, in: .fraction,
            doc: "kl_cov: the share of a mini-batch's tokens, those of the highest covariance, that pay for moving.")
        klCovCoefficient = section.number(
            "ppo_kl_coef", default: 1, in: .nonNegative, doc: "kl_cov: what they pay for each unit of |log ratio|.")
        tauPositive = section.number(
            "tau_pos", default: 1, in: .positive, doc: "sapo: the gate's temperature where the advantage is positive.")
        tauNegative = section.number("tau_neg", default: 1.05, in: .positive, doc: "sapo: the same where it is not.")
        droBeta = section.number(
            "dro_beta", default: 1, in: .positive, doc: "dro: the weight of the squared log ratio.")
    }
}
