public import TensorCore

/// One micro-batch as a policy loss sees it: float32 `[B, L]` each.
public struct PolicyLossArguments {
    public var oldLogProbs, logProbs, advantages, responseMask: Tensor
    public var aggregation: LossAggregation
    public var totals: LossAggregation.Totals
    /// Weights of rollout correction `[B, L]`, taken as constants; nil for none.
    public var rolloutWeights: Tensor?

    public init(
        oldLogProbs: Tensor, logProbs: Tensor, advantages: Tensor, responseMask: Tensor, aggregation: LossAggregation,
        totals: LossAggregation.Totals = .init(), rolloutWeights: Tensor? = nil
    ) {
        self.rolloutWeights = rolloutWeights
        self.oldLogProbs = oldLogProbs
        self.logProbs = logProbs
        self.advantages = advantages
        self.responseMask = responseMask
        self.aggregation = aggregation
        self.totals = totals
    }

    /// The weighted per-token losses as one number.
    public func aggregate(_ losses: Tensor) throws(TorchError) -> Tensor {
        let weighted = if let rolloutWeights { try losses.multiplied(by: rolloutWeights.detached()) } else { losses }
        return try aggregation(weighted, mask: responseMask, totals: totals)
    }

    /// A masked mean over the whole batch's tokens: additive over micro-batches where the totals are given.
    public func share(_ values: Tensor) throws(TorchError) -> Tensor {
        try Masked.share(values, responseMask, totals: totals)
    }

    /// log π − log π_old, cut to ±20 so that its exponential stays finite.
    var logRatio: Tensor {
        get throws(TorchError) { try logProbs.subtracting(oldLogProbs).clamped(min: -20, max: 20) }
    }

    /// The loss and its metrics; `metrics` runs without recording gradients.
    func result(
        _ losses: Tensor, _ metrics: () throws -> [(name: String, value: Tensor)]
    ) throws -> PolicyLossResult {
        PolicyLossResult(loss: try aggregate(losses), metrics: try withNoGrad(metrics))
    }
}

/// A loss with its metrics, detached scalars under verl's names.
public struct PolicyLossResult {
    public var loss: Tensor
    public var metrics: [(name: String, value: Tensor)]
    public init(loss: Tensor, metrics: [(name: String, value: Tensor)]) {
        self.loss = loss
        self.metrics = metrics
    }
}

/// A policy-gradient objective. Adding one: a file with a conforming struct, and a line in ``PolicyLosses/all``.
public protocol PolicyLoss: Sendable {
    func callAsFunction(_ arguments: PolicyLossArguments) throws -> PolicyLossResult

    /// This loss with what it needs to know of the whole batch that one optimizer step sees (Clip-Cov's means and cut, say), so
    /// that its shares over micro-batches add up. Call it once a step with all rows; the current log-probabilities are not known
    /// then, so give the old ones for both. A loss that was not fitted takes each call's rows for the whole batch.
    func fitted(to batch: PolicyLossArguments) throws -> any PolicyLoss

    /// Whether ``fitted(to:)`` has anything to find out.
    var needsWholeBatch: Bool { get }

    /// Whether rows whose advantages are all zero have no gradient, so that they need not be computed.
    var vanishesWithoutAdvantage: Bool { get }
}

extension PolicyLoss {
    public func fitted(to batch: PolicyLossArguments) throws -> any PolicyLoss { self }
    public var needsWholeBatch: Bool { false }
    public var vanishesWithoutAdvantage: Bool { true }
}

/// The numbers that losses may use, from the configuration.
public struct PolicyLossSettings: Sendable, Hashable {
    /// The ratio is clipped to [1 − low, 1 + high]; a higher upper range is DAPO's clip-higher.
    public var clipLow, clipHigh: Double
    /// Dual clip's bound c on −ratio·advantage where the advantage is negative (Ye et al. 2020); DPPO's bound on the ratio.
    public var dualClip: Double
    /// Clip-Cov: the share of tokens to drop and the range of covariances they are picked from.
    public var clipCovRatio, clipCovLower, clipCovUpper: Double
    /// KL-Cov: the share of tokens to hold back and the coefficient of their penalty (`ppo_kl_coef`).
    public var klCovRatio, klCovCoefficient: Double
    /// SAPO's temperatures for positive and other advantages.
    public var tauPositive, tauNegative: Double
    /// DRO's weight of the squared log ratio.
    public var droBeta: Double
    /// Whether geo_mean divides by the number of rows in the call, as verl does, and not by the whole batch's sequences.
    public var geoMeanCountsRows: Bool
    /// Bypass mode's correction and the loss under it.
    public var rolloutCorrection: RolloutCorrection?
    public var bypassLoss: BypassModeLoss.Kind

    public init(
        clipLow: Double = 0.2, clipHigh: Double = 0.2, dualClip: Double = 3, clipCovRatio: Double = 0.0002,
        clipCovLower: Double = 1, clipCovUpper: Double = 5, klCovRatio: Double = 0.0002, klCovCoefficient: Double = 1,
        tauPositive: Double = 1, tauNegative: Double = 1.05, droBeta: Double = 1, geoMeanCountsRows: Bool = false,
        rolloutCorrection: RolloutCorrection? = nil, bypassLoss: BypassModeLoss.Kind = .ppoClip
    ) {
        self.clipLow = clipLow
        self.clipHigh = clipHigh
        self.dualClip = dualClip
        self.clipCovRatio = clipCovRatio
        self.clipCovLower = clipCovLower
        self.clipCovUpper = clipCovUpper
        self.klCovRatio = klCovRatio
        self.klCovCoefficient = klCovCoefficient
        self.tauPositive = tauPositive
        self.tauNegative = tauNegative
        self.droBeta = droBeta
        self.geoMeanCountsRows = geoMeanCountsRows
        self.rolloutCorrection = rolloutCorrection
        self.bypassLoss = bypassLoss
    }
}

/// Every policy loss by its configuration name.
public enum PolicyLosses {
    public static let all: [String: @Sendable (PolicyLossSettings) -> any PolicyLoss] = [
        "bypass_mode": { BypassModeLoss($0) },
        "cispo": { CISPOLoss($0) },
        "clip_cov": { ClipCovLoss($0) },
        "dppo_kl": { DPPOLoss($0, divergence: .binaryKL) },
        "dppo_tv": { DPPOLoss($0, divergence: .totalVariation) },
        "dro": { DROLoss($0) },
        "geo_mean": { GeoMeanLoss($0) },
        "gpg": { _ in GPGLoss() },
        "gspo": { GSPOLoss($0) },
        "kl_cov": { KLCovLoss($0) },
        "reinforce": { _ in ReinforceLoss() },
        "sapo": { SAPOLoss($0) },
        "vanilla": { PPOClipLoss($0) },
    ]
}
