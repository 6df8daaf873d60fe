import Checkpoints

extension ModelConfig {
    /// The sizes that nearly every family writes under the same names.
    ///
    /// - Parameters: `transformers`' defaults of this family's configuration, for keys that are absent: of `head_dim` (nil: hidden
    ///   size over heads), `num_key_value_heads` (nil: as many as heads) and `max_position_embeddings`.
    /// - Throws: `CheckpointError` for missing or mistyped keys, ``ModelError`` for sizes that do not fit each other.
    func decoderShape(
        headDim defaultHeadDim: Int? = nil, keyValueHeads defaultKeyValueHeads: Int? = nil, maxPositions: Int
    ) throws -> ModelShape {
        let hidden = try size("hidden_size"), heads = try size("num_attention_heads")
        let layers = try size("num_hidden_layers"), vocabulary = try size("vocab_size")
        // Null means as many as heads, whatever the default.
        let absent = names("num_key_value_heads") ? heads : defaultKeyValueHeads ?? heads
        let keyValueHeads = try int("num_key_value_heads", default: absent)
        let headDim = try optionalInt("head_dim") ?? defaultHeadDim ?? hidden / heads
        guard keyValueHeads > 0, heads % keyValueHeads == 0, headDim > 0, headDim % 2 == 0, headDim <= 1 << 16 else {
            throw unsupported("\(heads) heads over \(keyValueHeads) key-value heads of size \(headDim) do not fit")
        }
        let positions = try int("max_position_embeddings", default: maxPositions)
        guard positions > 0 else { throw unsupported("max_position_embeddings is \(positions)") }
        return ModelShape(
            vocabulary: vocabulary, hidden: hidden, layers: layers, queryHeads: heads, keyValueHeads: keyValueHeads,
            headDim: headDim, maxPositions: positions)
    }

    /// A number of something, from 1 to 2^24.
    func size(_ key: String) throws -> Int {
        let value = try int(key)
        guard value >= 1, value <= 1 << 24 else { throw unsupported("\(key) is \(value)") }
        return value
    }

    func normEps(default other: Double = 1e-6) throws -> Double { try double("rms_norm_eps", default: other) }

    /// A factor that must be above zero.
    func multiplier(_ key: String, default other: Double = 1) throws -> Double {
        let value = try double(key, default: other)
        guard value.isFinite, value > 0 else { throw unsupported("\(key) is \(value); it must be positive") }
        return value
    }

    /// A soft cap; nil where it is null. `transformers` takes 30 or 50 where the key is absent.
    func softCap(_ key: String, default other: Double?) throws -> Double? {
        guard let value = try names(key) ? optionalDouble(key) : other else { return nil }
        guard value.isFinite, value > 0 else { throw unsupported("\(key) is \(value); it must be positive") }
        return value
    }

    /// `sliding_window`, nil where it is null; at least 1.
    func slidingWindow(default other: Int? = nil) throws -> Int? {
        guard let window = try names("sliding_window") ? optionalInt("sliding_window") : other else { return nil }
        guard window >= 1 else { throw unsupported("sliding_window is \(window); it must be 1 or more") }
        return window
    }

    /// Which layers see a window only: `layer_types` where it is there, else what `isSliding` says of each.
    func slidingLayers(_ layers: Int, _ isSliding: (Int) throws -> Bool) throws -> [Bool] {
        guard let types = try strings("layer_types") else { return try (0..<layers).map(isSliding) }
        guard types.count >= layers else {
            throw unsupported("layer_types names \(types.count) layers; there are \(layers)")
        }
        return try types.prefix(layers).map { type in
            guard type == "sliding_attention" || type == "full_attention" else {
                throw unsupported("layer_types holds '\(type)'; known are full_attention and sliding_attention")
            }
            return type == "sliding_attention"
        }
    }

    /// - Throws: ``ModelError`` where a switch that is not done here is on.
    func refuse(_ key: String, because reason: String) throws {
        if try bool(key, default: false) { throw unsupported("\(key) is true: \(reason)") }
    }
}

extension ModelShape {
    /// The usual scale of attention scores.
    var attentionScale: Double { 1 / Double(headDim).squareRoot() }
}
