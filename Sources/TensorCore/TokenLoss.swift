internal import CTorch

/// What ``Tensor/tokenLoss(hidden:weight:targets:logProbGrads:entropyGrads:temperature:transform:chunk:)`` gives.
public struct TokenLoss {
    /// float32 `[T]`, without gradients.
    public let logProbs, entropies: Tensor
    /// The loss's gradient in the hidden states, `[T, C]`: what to go on with backward.
    public let hiddenGrad: Tensor

    public init(logProbs: Tensor, entropies: Tensor, hiddenGrad: Tensor) {
        self.logProbs = logProbs
        self.entropies = entropies
        self.hiddenGrad = hiddenGrad
    }
}

extension Tensor {
    /// `log softmax(transform(hidden · weightᵀ) / temperature)` at `targets`, and the entropy of each row, both float32 `[T]`, with
    /// gradients. No more than `chunk` rows of logits exist at a time, or as many as suit the device; backward computes them again.
    /// Where `weight` is a leaf that has a gradient already, backward adds to that tensor itself.
    ///
    /// - Parameters: hidden `[T, C]`, weight `[V, C]`, targets int64 `[T]`.
    public static func tokenLogProbs(
        hidden: Tensor, weight: Tensor, targets: Tensor, temperature: Double = 1,
        transform: LogitsTransform = .identity, chunk: Int? = nil
    ) throws(TorchError) -> (logProbs: Tensor, entropies: Tensor) {
        var entropies: ct_tensor?
        let logProbs = try tensor("tokenLogProbs", [hidden, weight, targets]) {
            ct_token_log_probs(
                hidden.raw, weight.raw, targets.raw, temperature, transform.scale, transform.softCap ?? 0,
                Int64(chunk ?? 0),
                true, $0, &entropies, $1)
        }
        guard let entropies else { preconditionFailure("tokenLogProbs gave no entropies") }
        return (logProbs, Tensor(owning: entropies))
    }

    /// Forward and backward of the head at once, for a loss whose gradients in log-probabilities and entropies are known before
    /// them: likelihood with given weights, policy gradients of samples that are on policy. The logits are then computed once and
    /// not twice (Hsu et al. 2024, Liger Kernel). The gradient of `weight`, a leaf, is added to it where it requires one; that of
    /// `hidden` is in the result, and nothing is recorded.
    ///
    /// - Parameters:
    ///   - hidden: `[T, C]`, with weight `[V, C]` and targets int64 `[T]`.
    ///   - logProbGrads: d loss / d log-probability, float32 `[T]`.
    ///   - entropyGrads: d loss / d entropy, float32 `[T]`; nil: zero.
    public static func tokenLoss(
        hidden: Tensor, weight: Tensor, targets: Tensor, logProbGrads: Tensor, entropyGrads: Tensor? = nil,
        temperature: Double = 1, transform: LogitsTransform = .identity, chunk: Int? = nil
    ) throws(TorchError) -> TokenLoss {
        var entropies: ct_tensor?, hiddenGrad: ct_tensor?
        let logProbs = try tensor("tokenLoss", [hidden, weight, targets, logProbGrads]) {
            ct_token_loss(
                hidden.raw, weight.raw, targets.raw, logProbGrads.raw, entropyGrads?.raw, temperature, transform.scale,
                transform.softCap ?? 0, Int64(chunk ?? 0), $0, &entropies, &hiddenGrad, $1)
        }
        guard let entropies, let hiddenGrad else { preconditionFailure("tokenLoss gave no gradients") }
        return TokenLoss(
            logProbs: logProbs, entropies: Tensor(owning: entropies), hiddenGrad: Tensor(owning: hiddenGrad))
    }
}
