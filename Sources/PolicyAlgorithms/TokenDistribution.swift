public import TensorCore

/// What is read off a model's logits `[.., V]` at each position `[..]`. These hold a tensor as large as the logits; the training
/// engine works on chunks.
///
/// Source: verl `torch_functional.entropy_from_logits`, `logprobs_from_logits` and `calculate_sum_pi_squared_from_logits`.
public enum TokenDistribution {
    /// −Σ π log π, with gradient.
    public static func entropy(_ logits: Tensor) throws(TorchError) -> Tensor {
        let logProbs = try logits.logSoftmax(-1)
        return try logProbs.exp().multiplied(by: logProbs).sum(-1).negated()
    }

    /// log π of `labels` (int64 `[..]`), with gradient.
    public static func logProbs(_ logits: Tensor, labels: Tensor) throws(TorchError) -> Tensor {
        try logits.logSoftmax(-1).gathered(-1, labels.unsqueezed(-1)).squeezed(-1)
    }

    /// Σ π².
    public static func sumPiSquared(_ logits: Tensor) throws(TorchError) -> Tensor {
        try logits.softmax(-1).squared().sum(-1)
    }
}
