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
        guard let tokens = totals.tokens else { return try Masked.mean(values, responseMask) }
        return try Masked.sum(values, responseMask).divided(by: Double(tokens))
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
}

/// The clip ranges that losses may use, from the configuration.
public struct PolicyLossSettings: Sendable, Hashable {
    /// The ratio is clipped to [1 − low, 1 + high]; a higher upper range is DAPO's clip-higher.
    public var clipLow, clipHigh: Double
    /// Dual clip's bound c on −ratio·advantage where the advantage is negative (Ye et al. 2020).
    public var dualClip: Double
    public init(clipLow: Double = 0.2, clipHigh: Double = 0.2, dualClip: Double = 3) {
        self.clipLow = clipLow
        self.clipHigh = clipHigh
        self.dualClip = dualClip
    }
}

/// Every policy loss by its configuration name.
public enum PolicyLosses {
    public static let all: [String: @Sendable (PolicyLossSettings) -> any PolicyLoss] = [
        "vanilla": { PPOClipLoss($0) }
    ]
}
