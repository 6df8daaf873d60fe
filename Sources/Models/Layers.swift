import TensorCore

extension ParameterBuilder {
    /// One or more projections of the same input, stacked by rows. `parts` are the checkpoint's module names.
    func linear(
        _ name: String, _ parts: [(name: String, rows: Int)], inputs: Int, bias: Bool
    ) throws -> Projection {
        let weight = try fused(name + ".weight", parts.map { ($0.name + ".weight", $0.rows) }, columns: [inputs])
        let offset = bias ? try fused(name + ".bias", parts.map { ($0.name + ".bias", $0.rows) }, columns: []) : nil
        return projection(weight, bias: offset)
    }

    func linear(_ name: String, inputs: Int, outputs: Int, bias: Bool) throws -> Projection {
        try linear(name, [(name, outputs)], inputs: inputs, bias: bias)
    }
}

struct RMSNorm {
    let weight: Tensor
    let eps: Double

    init(_ builder: ParameterBuilder, _ name: String, size: Int, eps: Double) throws {
        weight = try builder.parameter(name + ".weight", [size])
        self.eps = eps
    }

    func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor { try x.rmsNorm(weight, eps: eps) }
}

/// The gated feed-forward layer of Llama: `down(silu(gate(x)) * up(x))`.
struct GatedMLP {
    let gateUp, down: Projection

    init(_ builder: ParameterBuilder, _ name: String, size: Int, intermediate: Int, bias: Bool) throws {
        gateUp = try builder.linear(
            name + ".gate_up_proj",
            [(name + ".gate_proj", intermediate), (name + ".up_proj", intermediate)], inputs: size, bias: bias)
        down = try builder.linear(name + ".down_proj", inputs: intermediate, outputs: size, bias: bias)
    }

    func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor { try down(gateUp(x).siluMultiply()) }
}

/// cos and sin of a forward pass's positions, shared by all layers.
struct RotaryAngles {
    let cos, sin: Tensor  // float32 [T, D/2]
}
