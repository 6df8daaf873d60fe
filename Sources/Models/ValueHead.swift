public import TensorCore

/// A head of one number on a language model's last layer, beside the one that gives logits: the value of each token's position, for a
/// critic that shares the policy's trunk. Float32, and 0 everywhere at first.
public final class ValueHead {
    public let weight, bias: Parameter
    public var parameters: [Parameter] { [weight, bias] }

    public init(hidden: Int, device: Device) throws(TorchError) {
        func parameter(_ name: String, _ shape: [Int]) throws(TorchError) -> Parameter {
            let tensor = try Tensor.zeros(shape, device: device)
            try tensor.setRequiresGrad()
            let part = Parameter.Part(whole: name, rows: 0..<shape[0], columns: Array(shape.dropFirst()))
            return Parameter(name: name, tensor: tensor, parts: [part])
        }
        weight = try parameter("score.weight", [1, hidden])
        bias = try parameter("score.bias", [1])
    }

    /// Hidden states `[T, C]` to float32 `[T]`, with gradients in both.
    public func callAsFunction(_ hidden_TC: Tensor) throws(TorchError) -> Tensor {
        let wide = try hidden_TC.to(dtype: .float32)
        return try wide.matmul(weight.tensor.transposed(0, 1)).squeezed(1).adding(bias.tensor)
    }
}
