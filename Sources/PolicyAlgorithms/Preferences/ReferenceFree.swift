public import TensorCore

/// Contrastive preference optimisation (Xu et al. 2024) and SimPO (Meng et al. 2024): preference without a reference model, with a
/// share of the chosen answer's negative log-likelihood.
///
/// Source: TRL `experimental.cpo.CPOTrainer.cpo_loss` and `get_batch_loss_metrics`.
public struct CPOLoss: Sendable, Hashable {
    public enum Kind: String, Sendable, Hashable, CaseIterable { case sigmoid, hinge, ipo, simpo }

    public var kind: Kind
    public var beta, labelSmoothing: Double
    /// SimPO's target margin γ, in units of reward.
    public var margin: Double
    /// The weight of the negative log-likelihood (`cpo_alpha`).
    public var likelihoodWeight: Double

    public init(
        _ kind: Kind = .sigmoid, beta: Double = 0.1, labelSmoothing: Double = 0, margin: Double = 0.5,
        likelihoodWeight: Double = 1
    ) {
        self.kind = kind
        self.beta = beta
        self.labelSmoothing = labelSmoothing
        self.margin = margin
        self.likelihoodWeight = likelihoodWeight
    }

    /// Whether log-probabilities are to be averaged over an answer's tokens, and not summed.
    public var averages: Bool { kind == .ipo || kind == .simpo }

    /// - Parameters:
    ///   - chosen, rejected: log-probabilities of the answers, trainable, `[B]`; see ``averages``
    ///   - likelihoodLoss: this call's share of the chosen answers' mean negative log-likelihood a token; nil where it has no weight.
    ///   - totals: of the whole batch, pairs as sequences.
    public func callAsFunction(
        chosen: Tensor, rejected: Tensor, likelihoodLoss: Tensor? = nil, totals: LossAggregation.Totals = .init()
    ) throws -> PreferenceLossResult {
        let difference = try chosen.subtracting(rejected)
        let losses =
            switch kind {
            case .sigmoid: try Pairs.logistic(difference.multiplied(by: beta), smoothing: labelSmoothing)
            case .simpo:
                try Pairs.logistic(difference.multiplied(by: beta).subtracting(margin), smoothing: labelSmoothing)
            case .hinge: try difference.multiplied(by: -beta).adding(1).relu()
            case .ipo: try difference.subtracting(1 / (2 * beta)).squared()
            }
        var loss = try Pairs.mean(losses, totals)
        var likelihood = try Tensor.zeros([], device: chosen.device)
        if likelihoodWeight != 0 {
            likelihood = try likelihoodLoss.required("likelihoodLoss", by: "cpo", "or set cpo_alpha to 0")
            loss = try loss.adding(likelihood.multiplied(by: likelihoodWeight))
        }
        return PreferenceLossResult(
            loss: loss,
            metrics: try withNoGrad {
                try rewardMetrics(beta, chosen, rejected) + [("nll_loss", likelihood.detached())]
            })
    }
}

/// Odds-ratio preference optimisation (Hong et al. 2024): the chosen text's negative log-likelihood, less β log σ of the log odds
/// ratio of the two answers.
///
/// Source: TRL `experimental.orpo.ORPOTrainer.odds_ratio_loss` and `get_batch_loss_metrics`.
public struct ORPOLoss: Sendable, Hashable {
    public var beta: Double
    public init(beta: Double = 0.1) { self.beta = beta }

    /// - Parameters:
    ///   - chosen, rejected: mean log-probabilities a token of the answers, trainable, `[B]`
    ///   - likelihoodLoss: this call's share of the mean negative log-likelihood of the chosen texts' tokens, prompts included
    ///   - totals: of the whole batch, pairs as sequences.
    public func callAsFunction(
        chosen: Tensor, rejected: Tensor, likelihoodLoss: Tensor, totals: LossAggregation.Totals = .init()
    ) throws(TorchError) -> PreferenceLossResult {
        let logOdds = try chosen.subtracting(rejected)
            .subtracting(Self.logOneMinusExp(chosen).subtracting(Self.logOneMinusExp(rejected)))
        let ratio = try logOdds.logSigmoid()
        let loss = try likelihoodLoss.subtracting(Pairs.mean(ratio, totals).multiplied(by: beta))
        return PreferenceLossResult(
            loss: loss,
            metrics: try withNoGrad { () throws(TorchError) in
                try rewardMetrics(beta, chosen, rejected) + [
                    ("nll_loss", likelihoodLoss.detached()), ("log_odds_ratio", ratio.mean()),
                    ("log_odds_chosen", logOdds.mean()),
                ]
            })
    }

    /// log(1 − eˣ) for x < 0, by the form that does not cancel.
    private static func logOneMinusExp(_ x: Tensor) throws(TorchError) -> Tensor {
        try x.less(than: -0.693_147_180_559_945_3)
            .select(x.exp().negated().log1p(), else: x.expm1().negated().log())
    }
}

private func rewardMetrics(
    _ beta: Double, _ chosen: Tensor, _ rejected: Tensor
) throws(TorchError) -> [(name: String, value: Tensor)] {
    let logProbs = (chosen: try chosen.detached(), rejected: try rejected.detached())
    return try Pairs.metrics(
        rewards: (try logProbs.chosen.multiplied(by: beta), try logProbs.rejected.multiplied(by: beta)),
        logProbs: logProbs)
}
