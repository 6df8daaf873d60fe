internal import TensorCore

/// The covariance of advantage and log-probability, token by token, about the means of the whole batch that one optimizer step
/// sees (Cui et al. 2025, "The Entropy Mechanism of RL for Reasoning Language Models").
struct TokenCovariance: Sendable, Hashable {
    let meanAdvantage, meanLogProb: Double

    /// Means over a batch's tokens; log-probabilities are those at hand.
    init(of batch: PolicyLossArguments) throws(TorchError) {
        meanAdvantage = try Masked.mean(batch.advantages, batch.responseMask).item()
        meanLogProb = try Masked.mean(batch.logProbs.detached(), batch.responseMask).item()
    }

    /// `[B, L]`, −∞ outside the mask; no gradient.
    func callAsFunction(_ arguments: PolicyLossArguments) throws(TorchError) -> Tensor {
        let covariance = try arguments.advantages.subtracting(meanAdvantage)
            .multiplied(by: arguments.logProbs.detached().subtracting(meanLogProb))
        return try covariance.maskedFill(arguments.responseMask.lessOrEqual(to: 0), -.infinity)
    }
}

/// A token's place in an arbitrary but fixed order: it follows from its position in the answer, its old log-probability and its
/// advantage alone, so that a pick by it needs no generator and is the same however a batch is split.
struct TokenHash {
    /// Row-major, of `[B, L]`.
    let index: Int
    let hash: UInt64

    /// The tokens where `condition [B, L]` holds.
    static func all(_ arguments: PolicyLossArguments, where condition: Tensor) throws(TorchError) -> [TokenHash] {
        let indices = try condition.flattened().nonZero().flattened()
        let logProbs = try arguments.oldLogProbs.flattened().indexSelect(0, indices).values(Float.self)
        let advantages = try arguments.advantages.flattened().indexSelect(0, indices).values(Float.self)
        let width = condition.size(1)
        return try indices.values(Int64.self).enumerated().map { place, index in
            let bits = UInt64(logProbs[place].bitPattern) << 32 | UInt64(advantages[place].bitPattern)
            return TokenHash(index: Int(index), hash: mixed(bits &+ mixed(UInt64(Int(index) % width))))
        }
    }

    /// 1 at the given tokens, 0 elsewhere: float32 of `other`'s shape.
    static func marks(_ tokens: [TokenHash], like other: Tensor) throws(TorchError) -> Tensor {
        var marks = [Float](repeating: 0, count: other.count)
        for token in tokens { marks[token.index] = 1 }
        return try Tensor(marks, shape: other.shape, device: other.device)
    }

    /// SplitMix64's finaliser.
    private static func mixed(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
