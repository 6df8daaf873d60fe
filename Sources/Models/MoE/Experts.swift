import TensorCore

/// How a checkpoint names the three matrices of an expert.
struct ExpertNames: Sendable {
    var gate = "gate_proj"
    var up = "up_proj"
    var down = "down_proj"

    static let hub = ExpertNames()
    static let mixtral = ExpertNames(gate: "w1", up: "w3", down: "w2")
}

/// The gated feed-forward networks of all experts of a layer. All gate and up matrices are one parameter and all down matrices
/// another, so that each is one grouped product; its `parts` are the checkpoint's tensors, one for each expert.
struct Experts {
    let count: Int
    private let gateUp: Tensor  // [E * 2I, C]
    private let down: Tensor  // [E * C, I]
    private let activation: Activation

    /// - Parameters:
    ///   - name: what the names of single experts begin with, before their number.
    ///   - whole: what the names begin with where the checkpoint holds all experts of a layer as one tensor, `gate_up_proj`
    ///     `[E, 2I, C]` and `down_proj` `[E, C, I]`; nil: `name`.
    init(
        _ builder: ParameterBuilder, _ name: String, whole: String? = nil, count: Int, size: Int, intermediate: Int,
        activation: Activation, names: ExpertNames = .hub
    ) throws {
        self.count = count
        self.activation = activation
        let experts = (0..<count).map { "\(name).\($0)." }, whole = whole ?? name
        gateUp = try builder.fused(
            name + ".gate_up_proj.weight",
            experts.flatMap {
                [($0 + names.gate + ".weight", intermediate), ($0 + names.up + ".weight", intermediate)]
            },
            columns: [size], storedAs: (whole + ".gate_up_proj", [count, 2 * intermediate, size]))
        down = try builder.fused(
            name + ".down_proj.weight", experts.map { ($0 + names.down + ".weight", size) }, columns: [intermediate],
            storedAs: (whole + ".down_proj", [count, size, intermediate]))
    }

    /// `x [T, C]` through the experts that `routing` names, `[T, C]`.
    func callAsFunction(_ x: Tensor, _ routing: Routing) throws(TorchError) -> Tensor {
        let rows = try ExpertRows(chosen: routing.chosen, count: count)
        let size = x.size(1), intermediate = down.size(1)
        let gated = try rows.linear(rows.gather(x), gateUp.reshaped([count, 2 * intermediate, size]))
        let output = try rows.linear(activation.gate(gated), down.reshaped([count, size, intermediate]))
        return try rows.combine(output, weights: routing.weights)
    }
}
