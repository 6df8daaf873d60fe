import Checkpoints

extension ModelConfig {
    /// The rotation that the configuration asks for, in either spelling (`rope_parameters`, or `rope_theta` and `rope_scaling`).
    ///
    /// - Parameters:
    ///   - layerType: "full_attention" or "sliding_attention" where a model rotates them differently.
    ///   - allowsPartial: whether the family can rotate a part of each head (`partial_rotary_factor`).
    /// - Throws: `CheckpointError` for missing or mistyped keys, ``ModelError`` for types that are not known.
    func rotary(
        _ shape: ModelShape, layerType: String? = nil, defaultTheta: Double = 10000, allowsPartial: Bool = false
    ) throws -> RotaryFrequencies {
        try rotary(
            rope(layerType: layerType, defaultTheta: defaultTheta), headDim: shape.headDim,
            maxPositions: shape.maxPositions, allowsPartial: allowsPartial)
    }

    /// - Parameters:
    ///   - headDim: dimensions of a head that could be rotated; a partial factor takes its share of them.
    ///   - originalLength: the pretraining length where the family has a default of its own for it.
    func rotary(
        _ rope: RopeParameters, headDim: Int, maxPositions: Int, allowsPartial: Bool = false,
        originalLength: Int? = nil
    ) throws -> RotaryFrequencies {
        guard rope.theta.isFinite, rope.theta > 1 else {
            throw unsupported("rope_theta is \(rope.theta); it must be above 1")
        }
        guard rope.partialRotaryFactor == 1 || allowsPartial else {
            throw unsupported(
                "partial_rotary_factor is \(rope.partialRotaryFactor); this architecture rotates whole heads")
        }
        // Also keeps NaN from the conversion below.
        guard rope.partialRotaryFactor > 0, rope.partialRotaryFactor <= 1 else {
            throw unsupported("partial_rotary_factor is \(rope.partialRotaryFactor); it must be above 0 and at most 1")
        }
        let share = Int(Double(headDim) * rope.partialRotaryFactor)
        // An odd share is rounded up, as the steps of two over it are counted.
        let rotated = share + share % 2
        guard share > 0, rotated <= headDim else {
            throw unsupported("partial_rotary_factor is \(rope.partialRotaryFactor) of heads of \(headDim)")
        }
        return RotaryFrequencies(
            headDim: rotated, theta: rope.theta,
            scaling: try scaling(rope, rotated: rotated, maxPositions, originalLength))
    }

    private func scaling(
        _ rope: RopeParameters, rotated: Int, _ maxPositions: Int, _ familyLength: Int?
    ) throws -> RotaryFrequencies.Scaling {
        let own = rope.parameters
        func positive(_ key: String, _ value: Double) throws -> Double {
            guard value.isFinite, value > 0 else { throw own.unsupported("\(key) is \(value); it must be positive") }
            return value
        }
        func number(_ key: String) throws -> Double { try positive(key, own.double(key)) }
        // The pretraining length may stand beside the rope parameters (Phi-3), in them, or be the model's own.
        func originalLength() throws -> Int {
            let length =
                try optionalInt("original_max_position_embeddings")
                ?? familyLength ?? own.optionalInt("original_max_position_embeddings") ?? maxPositions
            guard length > 0 else { throw unsupported("original_max_position_embeddings is \(length)") }
            return length
        }
        switch rope.type {
        case "default": return .none
        case "linear": return .linear(factor: try number("factor"))
        case "dynamic":
            guard rotated > 2 else { throw unsupported("dynamic rotary scaling of heads of \(rotated)") }
            let factor = try number("factor")
            guard factor >= 1 else { throw own.unsupported("factor is \(factor); it must be 1 or more") }
            return .dynamic(factor: factor, length: maxPositions)
        case "llama3":
            return .llama3(
                factor: try number("factor"), lowFrequency: try number("low_freq_factor"),
                highFrequency: try number("high_freq_factor"), originalLength: Double(try originalLength()))
        case "yarn":
            let length = Double(try originalLength())
            let factor = try own.optionalDouble("factor") ?? Double(maxPositions) / length
            var yarn = RotaryFrequencies.YaRN(
                factor: try positive("factor", factor), originalLength: length,
                attentionFactor: try own.optionalDouble("attention_factor"),
                mscale: try own.optionalDouble("mscale"), mscaleAllDim: try own.optionalDouble("mscale_all_dim"))
            func beta(_ key: String, _ other: Double) throws -> Double {
                let value = try own.double(key, default: other)
                return value == 0 ? other : try positive(key, value)
            }
            yarn.betaFast = try beta("beta_fast", 32)
            yarn.betaSlow = try beta("beta_slow", 1)
            yarn.truncates = try own.bool("truncate", default: true)
            return .yarn(yarn)
        case "longrope":
            func factors(_ key: String) throws -> [Double] {
                let all = try own.doubles(key)
                guard all.count == rotated / 2, all.allSatisfy({ $0.isFinite && $0 > 0 }) else {
                    throw own.unsupported(
                        "\(key) holds \(all.count) numbers; \(rotated / 2) positive ones are needed, one for each "
                            + "rotated pair")
                }
                return all
            }
            let length = try originalLength()
            let factor = try own.optionalDouble("factor") ?? Double(maxPositions) / Double(length)
            return .longRope(
                RotaryFrequencies.LongRoPE(
                    short: try factors("short_factor"), long: try factors("long_factor"), originalLength: length,
                    factor: try positive("factor", factor),
                    attentionFactor: try own.optionalDouble("attention_factor")))
        default:
            throw own.unsupported(
                "rope_type '\(rope.type)' is not known; known are default, linear, dynamic, llama3, longrope and yarn")
        }
    }

    /// A list of numbers.
    private func doubles(_ key: String) throws -> [Double] {
        let values = value(key)?.arrayValue ?? []
        let numbers = values.compactMap(\.doubleValue)
        guard !values.isEmpty, numbers.count == values.count else {
            throw unsupported("'\(key)' should be a list of numbers")
        }
        return numbers
    }

    /// An error that names the file.
    func unsupported(_ message: String) -> ModelError { ModelError(.unsupported, "\(path): \(message)") }
}
