public import Collectives
public import Models
public import TensorCore

/// What an optimizer sees of one trained tensor: a whole parameter, or the rows of one that a rank keeps.
public struct OptimizerParameter {
    public let name: String
    /// What passes compute with and each step writes into; float32 or bfloat16, contiguous.
    public let weight: Tensor
    /// Whether weight decay pulls on it.
    public let decays: Bool
    /// Called after each micro-batch's backward pass.
    let gather: () throws(TorchError) -> Void
    /// The mini-batch's summed gradient, of the weight's shape; nil: there is none, and the tensor is left alone.
    let gradient: () throws(TorchError) -> Tensor?
    /// Frees the gradient.
    let clear: () throws(TorchError) -> Void
    /// What a tensor of the weight's shape, such as a moment, is of the checkpoint's tensors; nil where no checkpoint is written.
    let shards: ((Tensor) throws(TorchError) -> [LocalShard])?

    public init(
        name: String, weight: Tensor, decays: Bool = true,
        gather: @escaping () throws(TorchError) -> Void = { () throws(TorchError) in },
        gradient: @escaping () throws(TorchError) -> Tensor?, clear: @escaping () throws(TorchError) -> Void,
        shards: ((Tensor) throws(TorchError) -> [LocalShard])? = nil
    ) {
        self.shards = shards
        self.name = name
        self.weight = weight
        self.decays = decays
        self.gather = gather
        self.gradient = gradient
        self.clear = clear
    }

    /// A parameter that gathers its own gradient. Where `gradDType` is not the weight's type, each backward pass's share is added
    /// to a sum of that type as soon as it is there, and freed.
    public init(_ parameter: Parameter, decays: Bool = true, gradDType: DType) throws(TorchError) {
        let leaf = parameter.tensor
        try leaf.setRequiresGrad()
        let isSummed = leaf.dtype != gradDType
        if isSummed { try leaf.sumGradients(as: gradDType) } else { try leaf.endGradientSum() }
        self.init(
            name: parameter.name, weight: leaf, decays: decays,
            gather: { () throws(TorchError) in if isSummed { try leaf.gatherGradient() } },
            gradient: { () throws(TorchError) in isSummed ? try leaf.gradientSum() : try leaf.grad() },
            clear: { () throws(TorchError) in isSummed ? try leaf.clearGradientSum() : try leaf.setGrad(nil) },
            shards: { (tensor) throws(TorchError) in try parameter.shards(of: tensor, rows: 0..<tensor.size(0)) })
    }
}
