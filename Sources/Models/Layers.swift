import TensorCore

extension ParameterBuilder {
    /// A projection that is one module of the checkpoint.
    func linear(
        _ name: String, inputs: Int, outputs: Int, bias: Bool, share: ProjectionShare = .whole()
    ) throws -> Projection {
        try linear(name, [(name, outputs)], inputs: inputs, bias: bias, share: share)
    }
}

struct RMSNorm {
    /// How a checkpoint stores the weight.
    enum Convention: Sendable, Hashable {
        case plain
        /// Less one, and multiplied in float32 (Gemma).
        case unitOffset
    }

    let weight: Tensor
    let eps: Double
    let convention: Convention

    init(weight: Tensor, eps: Double, convention: Convention) {
        (self.weight, self.eps, self.convention) = (weight, eps, convention)
    }

    init(
        _ builder: ParameterBuilder, _ name: String, size: Int, eps: Double, convention: Convention = .plain,
        gradient: GradientShare = .stream
    ) throws {
        weight = try builder.parameter(name + ".weight", [size], gradient: gradient)
        self.eps = eps
        self.convention = convention
    }

    var terms: RMSNormTerms { RMSNormTerms(weight: weight, eps: eps, hasUnitOffset: convention == .unitOffset) }

    func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor { try x.rmsNorm(terms) }
}

/// What stands between a layer's attention and its output: dense, or a mixture of experts.
protocol FeedForward {
    /// `[T, C]` to `[T, C]`.
    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor
}

/// The gated feed-forward layer of Llama: `down(activation(gate(x)) * up(x))`.
struct GatedMLP: FeedForward {
    let gateUp, down: Projection
    let activation: Activation

    /// - Parameter isFused: the checkpoint holds gate and up as one tensor, `gate_up_proj`.
    init(
        _ builder: ParameterBuilder, _ name: String, size: Int, intermediate: Int, bias: Bool = false,
        activation: Activation = .silu, isFused: Bool = false
    ) throws {
        let parts =
            isFused
            ? [(name + ".gate_up_proj", 2 * intermediate)]
            : [(name + ".gate_proj", intermediate), (name + ".up_proj", intermediate)]
        gateUp = try builder.linear(
            name + ".gate_up_proj", parts, inputs: size, bias: bias,
            share: .columns([RowBlock(rows: intermediate), RowBlock(rows: intermediate)]))
        down = try builder.linear(
            name + ".down_proj", inputs: intermediate, outputs: size, bias: bias, share: .rows(units: intermediate))
        self.activation = activation
    }

    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor {
        let isRead = !pass.leavesOutLastProduct
        return try pass.layout.leave(part(pass.layout.enter(x), isRead: isRead), bias: down.biasOfSum, isRead: isRead)
    }

    /// This rank's part of the sum, from within a region that tensor ranks share.
    /// - Parameter isRead: false where only the gradients' way through the result is wanted, not its value.
    func part(_ x: Tensor, isRead: Bool = true) throws(TorchError) -> Tensor {
        let gated = try activation.gate(gateUp(x, kept: .gateUp), isRead: isRead || down.readsInputAnyway)
        return try down(gated, isRead: isRead)
    }
}
