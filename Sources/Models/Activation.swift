import Checkpoints
import TensorCore

/// The non-linearity of a feed-forward layer, by `transformers`' names (`ACT2FN`).
enum Activation: Sendable, Hashable {
    case silu, gelu, geluTanh, quickGelu, relu, squaredRelu, sigmoid, tanh

    init?(name: String) {
        switch name {
        case "silu", "swish": self = .silu
        case "gelu", "gelu_python": self = .gelu
        // Three ways to write one formula.
        case "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate": self = .geluTanh
        case "quick_gelu": self = .quickGelu
        case "relu": self = .relu
        case "relu2": self = .squaredRelu
        case "sigmoid": self = .sigmoid
        case "tanh": self = .tanh
        default: return nil
        }
    }

    func callAsFunction(_ x: Tensor) throws(TorchError) -> Tensor {
        switch self {
        case .silu: try x.silu()
        case .gelu: try x.gelu()
        case .geluTanh: try x.gelu(tanhApproximation: true)
        case .quickGelu: try x.multiplied(by: x.multiplied(by: 1.702).sigmoid())
        case .relu: try x.relu()
        case .squaredRelu: try x.relu().squared()
        case .sigmoid: try x.sigmoid()
        case .tanh: try x.tanh()
        }
    }

    /// `activation(gate) * up` for `[.., 2I]` that holds gate, then up.
    ///
    /// - Parameter isRead: false where only the gradients' way through it is wanted, not its value.
    func gate(_ gateUp: Tensor, isRead: Bool = true) throws(TorchError) -> Tensor {
        switch self {
        case .silu: return try gateUp.gated(.silu, isRead: isRead)
        case .gelu: return try gateUp.gated(.gelu, isRead: isRead)
        case .geluTanh: return try gateUp.gated(.geluTanh, isRead: isRead)
        default: break
        }
        let last = gateUp.rank - 1, half = gateUp.size(last) / 2
        return try self(gateUp.narrowed(last, 0..<half)).multiplied(by: gateUp.narrowed(last, half..<2 * half))
    }
}

extension ModelConfig {
    /// - Throws: ``ModelError``, `unsupported`, for one that is not known.
    func activation(_ key: String = "hidden_act", default other: String = "silu") throws -> Activation {
        let name = try optionalString(key) ?? other
        guard let activation = Activation(name: name) else { throw unsupported("\(key) '\(name)' is not known") }
        return activation
    }
}
