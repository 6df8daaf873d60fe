internal import OrderedCollections

/// How a model turns positions into rotations, whichever way its `config.json` spells it.
public struct RopeParameters: Sendable, Hashable {
    /// The base of the frequencies.
    public var theta: Double
    /// "default", "linear", "dynamic", "yarn", "llama3", "longrope" …
    public var type: String
    /// The type's own parameters (`factor`, `low_freq_factor`, `original_max_position_embeddings` …).
    public var parameters: ModelConfig
    /// The share of a head's dimensions that is rotated.
    public var partialRotaryFactor: Double
}

extension ModelConfig {
    /// Reads `rope_parameters` (transformers 5; one object, or one for each layer type), else the older `rope_theta` and
    /// `rope_scaling` at the top level.
    ///
    /// - Parameter layerType: "full_attention" or "sliding_attention" where a model rotates them differently.
    /// - Throws: `CheckpointError.configuration` for a wrong type, or parameters of several layer types when none is named.
    public func rope(layerType: String? = nil, defaultTheta: Double = 10000) throws -> RopeParameters {
        if var rope = try nested("rope_parameters") {
            if !rope.object.isEmpty, rope.object.values.allSatisfy({ $0.objectValue != nil || $0.isNull }) {
                guard let layerType, let own = try rope.nested(layerType) else {
                    let keys = rope.object.keys.joined(separator: ", ")
                    throw CheckpointError(
                        .configuration, path,
                        "'rope_parameters' is by layer type (\(keys)), with none for '\(layerType ?? "any")'")
                }
                rope = own
            }
            let theta = try rope.optionalDouble("rope_theta") ?? double("rope_theta", default: defaultTheta)
            return try RopeParameters(
                theta: theta, type: ropeType(rope), parameters: rope, partialRotaryFactor: rotaryShare(rope))
        }
        // Gemma 3 spelt its sliding layers' base apart, and scaled only the full ones.
        if layerType == "sliding_attention", let local = try optionalDouble("rope_local_base_freq") {
            let none = ModelConfig([:], path: path)
            return try RopeParameters(
                theta: local, type: "default", parameters: none, partialRotaryFactor: rotaryShare(none))
        }
        let scaling = try nested("rope_scaling") ?? ModelConfig([:], path: path)
        return try RopeParameters(
            theta: double("rope_theta", default: defaultTheta), type: ropeType(scaling), parameters: scaling,
            partialRotaryFactor: rotaryShare(scaling))
    }

    private func ropeType(_ rope: ModelConfig) throws -> String {
        let type = try rope.optionalString("rope_type") ?? rope.optionalString("type") ?? "default"
        // Phi-3's first spelling.
        return type == "su" ? "longrope" : type
    }

    private func rotaryShare(_ rope: ModelConfig) throws -> Double {
        try rope.optionalDouble("partial_rotary_factor") ?? double("partial_rotary_factor", default: 1)
    }
}
