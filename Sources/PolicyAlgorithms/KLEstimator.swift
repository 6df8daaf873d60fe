public import TensorCore

/// Per-token estimates of KL(policy ‖ reference) from the log-probabilities of sampled tokens (Schulman, "Approximating KL
/// divergence"). Source: verl `core_algos.kl_penalty`.
public struct KLEstimator: Sendable, Hashable {
    public enum Kind: Sendable, Hashable {
        /// log π − log ref: unbiased, may be negative.
        case k1
        case absolute
        /// ½ (log π − log ref)²
        case k2
        /// r − 1 − log r with r = ref / π, clamped: unbiased in value, never negative.
        case k3
    }

    public var kind: Kind
    /// The value of `kind` with the gradient of k2, whose expectation is KL's.
    public var straightThrough: Bool

    public init(_ kind: Kind, straightThrough: Bool = false) {
        self.kind = kind
        self.straightThrough = straightThrough
    }

    /// verl's names: kl, k1, abs, mse, k2, low_var_kl, k3, each with an optional `+`; nil for any other.
    public init?(name: String) {
        let isPlus = name.hasSuffix("+")
        switch isPlus ? String(name.dropLast()) : name {
        case "kl", "k1": self.init(.k1, straightThrough: isPlus)
        case "abs": self.init(.absolute, straightThrough: isPlus)
        case "mse", "k2": self.init(.k2, straightThrough: isPlus)
        case "low_var_kl", "k3": self.init(.k3, straightThrough: isPlus)
        default: return nil
        }
    }

    public static let names = ["kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3"].flatMap { [$0, $0 + "+"] }

    /// - Parameters: logProbs and refLogProbs of any one shape.
    public func callAsFunction(_ logProbs: Tensor, _ refLogProbs: Tensor) throws(TorchError) -> Tensor {
        let value = try estimate(logProbs, refLogProbs)
        guard straightThrough else { return value }
        let surrogate = try KLEstimator(.k2).estimate(logProbs, refLogProbs)
        return try surrogate.subtracting(surrogate.detached()).adding(value.detached())
    }

    private func estimate(_ logProbs: Tensor, _ refLogProbs: Tensor) throws(TorchError) -> Tensor {
        let difference = try logProbs.subtracting(refLogProbs)
        switch kind {
        case .k1: return difference
        case .absolute: return try difference.abs()
        case .k2: return try difference.squared().multiplied(by: 0.5)
        case .k3:
            let logRatio = try difference.negated().clamped(min: -20, max: 20)
            return try logRatio.exp().subtracting(logRatio).subtracting(1).clamped(min: -10, max: 10)
        }
    }
}
