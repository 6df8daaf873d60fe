public import TensorCore

/// Where a layer's router sends the tokens of one forward pass.
public struct Routing {
    /// `[T, E]`, before softmax or sigmoid, with gradients.
    public let logits: Tensor
    /// int64 `[T, K]`, the experts of each token.
    public let chosen: Tensor
    /// float32 `[T, K]`, what each expert's output is multiplied with, with gradients.
    public let weights: Tensor
}

/// Decides which experts see which token.
protocol ExpertRouter {
    var experts: Int { get }
    /// - Parameter x: `[T, C]`
    func callAsFunction(_ x: Tensor) throws -> Routing
}

/// Mixtral's and Qwen's router: softmax over all experts in float32, then the K largest, scaled to a sum of 1 or left as they are
/// (`norm_topk_prob`).
struct SoftmaxRouter: ExpertRouter {
    let weight: Tensor  // [E, C]
    let expertsPerToken: Int
    let normalizes: Bool

    var experts: Int { weight.size(0) }

    func callAsFunction(_ x: Tensor) throws -> Routing {
        let logits = try x.linear(weight)
        let probabilities = try logits.to(dtype: .float32).softmax(1)
        let (values, chosen) = try probabilities.topK(expertsPerToken, dim: 1)
        let weights = normalizes ? try values.divided(by: values.sum(1, keepDim: true)) : values
        return Routing(logits: logits, chosen: chosen, weights: weights)
    }
}

/// DeepSeek-V3's router (DeepSeek-AI 2024, §2.1.2): a sigmoid for each expert; a bias, which no gradient reaches, helps to choose
/// but does not weigh; experts come in groups, and only those of the best groups (by their two best experts) can be chosen.
struct GroupedSigmoidRouter: ExpertRouter {
    let weight: Tensor  // [E, C]
    let bias: Tensor  // float32 [E]
    let expertsPerToken: Int
    let groups, groupsPerToken: Int
    let normalizes: Bool
    let scale: Double

    var experts: Int { weight.size(0) }

    func callAsFunction(_ x: Tensor) throws -> Routing {
        let logits = try x.to(dtype: .float32).linear(weight.to(dtype: .float32))
        let scores = try logits.sigmoid()
        let chosen = try withNoGrad { try choose(scores.detached().adding(bias)) }
        var weights = try scores.gathered(1, chosen)
        if normalizes { weights = try weights.divided(by: weights.sum(1, keepDim: true).adding(1e-20)) }
        return Routing(logits: logits, chosen: chosen, weights: try weights.multiplied(by: scale))
    }

    private func choose(_ scores: Tensor) throws(TorchError) -> Tensor {
        guard groupsPerToken < groups else { return try scores.topK(expertsPerToken, dim: 1).indices }
        let tokens = scores.size(0), size = experts / groups
        let grouped = try scores.reshaped([tokens, groups, size])
        let best = try grouped.topK(2, dim: 2).values.sum(2).topK(groupsPerToken, dim: 1).indices
        let left = try Tensor.ones([tokens, groups], device: scores.device)
            .scattered(1, best, Tensor.zeros(best.shape, device: scores.device))
        return try grouped.maskedFill(left.equal(to: 1).unsqueezed(2), -.infinity).reshaped([tokens, experts])
            .topK(expertsPerToken, dim: 1).indices
    }
}
