public import TensorCore

/// What a model's layers keep of their forward pass for backward (Chen et al. 2016; Korthikanti et al. 2022). Gradients are the same,
/// bit for bit, in every mode; only memory and time differ.
public struct ActivationCheckpointing: Sendable, Hashable {
    /// What one layer keeps.
    public enum Mode: Sendable, Hashable {
        /// All that its gradients need.
        case none
        /// Its input, and some results that take long to compute for what they weigh; the rest is computed again.
        case selective(KeptActivations)
        /// Its input alone: the layer is run again but for its last product, which no gradient needs.
        case full
    }

    /// The mode of the first layers.
    public var mode: Mode
    /// How many layers that is; nil: all.
    public var layers: Int?
    /// The mode of the layers after these.
    public var rest: Mode

    public init(_ mode: Mode, layers: Int? = nil, rest: Mode = .none) {
        self.mode = mode
        self.layers = layers
        self.rest = rest
    }

    public static let none = ActivationCheckpointing(.none)
    public static let full = ActivationCheckpointing(.full)
    /// Every layer keeps its input and `kept`: by default what is smallest for its price.
    public static func selective(keeps kept: KeptActivations = [.attention, .queryKeyValue]) -> ActivationCheckpointing
    {
        ActivationCheckpointing(.selective(kept))
    }

    public func mode(layer: Int) -> Mode { layer < layers ?? .max ? mode : rest }

    /// What a checkpoint around a layer keeps besides the layer's input; nil: there is none around it.
    func kept(layer: Int) -> KeptActivations? {
        switch mode(layer: layer) {
        case .none: nil
        case .selective(let kept): kept
        case .full: []
        }
    }
}

extension ActivationCheckpointing: CustomStringConvertible {
    public var description: String { layers.map { "\(mode) for \($0) layers, \(rest) for the rest" } ?? "\(mode)" }
}

extension ActivationCheckpointing.Mode: CustomStringConvertible {
    public var description: String {
        switch self {
        case .none: return "none"
        case .full: return "full"
        case .selective(let kept):
            let names = [
                (KeptActivations.attention, "attention"), (.queryKeyValue, "query_key_value"), (.gateUp, "gate_up"),
            ].filter { kept.contains($0.0) }.map(\.1)
            return "selective(" + names.joined(separator: ", ") + ")"
        }
    }
}
