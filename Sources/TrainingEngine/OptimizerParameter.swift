public import Models
public import TensorCore

/// What an optimizer sees of one trained tensor: a whole parameter, or the rows of one that a rank keeps.
public struct OptimizerParameter {
    public let name: String
    /// What passes compute with and each step writes into; float32 or bfloat16, contiguous.
    public let weight: Tensor
    /// Whether weight decay pulls on it.
    public let decays: Bool
    /// The mini-batch's summed gradient, of the weight's shape; nil: there is none, and the tensor is left alone.
    let gradient: () throws(TorchError) -> Tensor?
    /// Frees the gradient.
    let clear: () throws(TorchError) -> Void
    /// Takes what one backward pass left in the leaf into the sum.
    var gather: () throws(TorchError) -> Void = { () throws(TorchError) in }

    public init(
        name: String, weight: Tensor, decays: Bool = true, gradient: @escaping () throws(TorchError) -> Tensor?,
        clear: @escaping () throws(TorchError) -> Void
    ) {
        self.name = name
        self.weight = weight
        self.decays = decays
        self.gradient = gradient
        self.clear = clear
    }

    private final class Sum { var value: Tensor? }

    /// A parameter that gathers its own gradient, in `gradDType`.
    public init(_ parameter: Parameter, decays: Bool = true, gradDType: DType) throws(TorchError) {
        let leaf = parameter.tensor
        try leaf.setRequiresGrad()
        let sum = Sum(), isSummed = leaf.dtype != gradDType
        self.init(
            name: parameter.name, weight: leaf, decays: decays,
            gradient: { () throws(TorchError) in isSummed ? sum.value : try leaf.grad() },
            clear: { () throws(TorchError) in
                sum.value = nil
                try leaf.setGrad(nil)
            })
        guard isSummed else { return }
        gather = { () throws(TorchError) in
            guard let grad = try leaf.grad() else { return }
            if let value = sum.value { try value.add(grad) } else { sum.value = try grad.to(dtype: gradDType) }
            try leaf.setGrad(nil)
        }
    }
}
