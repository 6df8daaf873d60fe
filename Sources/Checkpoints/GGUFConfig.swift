internal import OrderedCollections
internal import TensorCore
#if canImport(Musl)
    internal import Musl
#else
    internal import Glibc
#endif

/// Says in the words of `config.json` what a GGUF file's metadata says.
struct GGUFConfig {
    private let file: GGUFFile
    private let family: GGUFFamily

    init(_ file: GGUFFile, _ family: GGUFFamily) {
        self.file = file
        self.family = family
    }

    private func value(_ key: String) -> GGUFValue? { file.metadata["\(family.name).\(key)"] }

    private func requiredInt(_ key: String) throws -> Int {
        guard let value = value(key)?.intValue, value > 0, value < 1 << 31 else {
            throw CheckpointError(
                .configuration, file.path, "the metadata has no positive integer \(family.name).\(key)")
        }
        return value
    }

    private func optionalInt(_ key: String) throws -> Int? {
        value(key) == nil ? nil : try requiredInt(key)
    }

    func config() throws -> ModelConfig {
        let heads = try requiredInt("attention.head_count")
        let hidden = try requiredInt("embedding_length")
        guard let epsilon = value("attention.layer_norm_rms_epsilon")?.doubleValue else {
            throw CheckpointError(
                .configuration, file.path, "the metadata has no \(family.name).attention.layer_norm_rms_epsilon")
        }
        let headSize: Int
        if let size = try optionalInt("attention.key_length") ?? optionalInt("rope.dimension_count") {
            headSize = size
        } else {
            headSize = hidden / heads
        }
        guard headSize > 0 else {
            throw CheckpointError(.configuration, file.path, "\(heads) heads do not fit a hidden size of \(hidden)")
        }
        // The embedding's rows are what the model has; the metadata's vocab_size is optional and may leave out padding.
        guard let embedding = file.tensors["token_embd.weight"], embedding.shape.count == 2 else {
            throw CheckpointError(.missingTensor, file.path, "there is no matrix 'token_embd.weight'")
        }
        var object: JSONObject = [
            "architectures": .array([.string(family.architecture)]),
            "attention_bias": .bool(file.tensors["blk.0.attn_q.bias"] != nil),
            "attention_dropout": .double(0),
        ]
        object["bos_token_id"] = tokenID("bos")
        object["eos_token_id"] = tokenID("eos")
        object["head_dim"] = .int(headSize)
        object["hidden_act"] = .string("silu")
        object["hidden_size"] = .int(hidden)
        object["initializer_range"] = .double(0.02)
        object["intermediate_size"] = .int(try requiredInt("feed_forward_length"))
        object["max_position_embeddings"] = .int(try requiredInt("context_length"))
        object["mlp_bias"] = .bool(file.tensors["blk.0.ffn_up.bias"] != nil)
        object["model_type"] = .string(family.modelType)
        object["num_attention_heads"] = .int(heads)
        object["num_hidden_layers"] = .int(try requiredInt("block_count"))
        object["num_key_value_heads"] = .int(try optionalInt("attention.head_count_kv") ?? heads)
        object["pad_token_id"] = tokenID("padding")
        object["rms_norm_eps"] = .double(epsilon)
        let theta = value("rope.freq_base")?.doubleValue ?? 10000
        object["rope_scaling"] = try ropeScaling(theta: theta, headSize: headSize)
        object["rope_theta"] = .double(theta)
        object["tie_word_embeddings"] = .bool(file.tensors["output.weight"] == nil)
        object["use_cache"] = .bool(true)
        object["vocab_size"] = .int(embedding.shape[0])
        return ModelConfig(object, path: file.path)
    }

    private func tokenID(_ name: String) -> JSONValue {
        file.metadata["tokenizer.ggml.\(name)_token_id"]?.intValue.map(JSONValue.int) ?? .null
    }

    private func ropeScaling(theta: Double, headSize: Int) throws -> JSONValue {
        if file.tensors["rope_freqs.weight"] != nil { return try llama3Scaling(theta: theta, headSize: headSize) }
        let type = value("rope.scaling.type")?.stringValue
        // Old files name a linear scale alone.
        let factor = value("rope.scaling.factor")?.doubleValue ?? value("rope.scale_linear")?.doubleValue
        switch type ?? (factor.map { $0 == 1 ? "none" : "linear" } ?? "none") {
        case "none": return .null
        case "linear":
            return .object(["factor": .double(factor ?? 1), "rope_type": .string("linear")])
        case "yarn":
            var scaling: JSONObject = ["factor": .double(factor ?? 1), "rope_type": .string("yarn")]
            if let original = value("rope.scaling.original_context_length")?.intValue {
                scaling["original_max_position_embeddings"] = .int(original)
            }
            return .object(scaling)
        case let other:
            throw CheckpointError(.unsupported, file.path, "rotary scaling of type '\(other)' is not read")
        }
    }

    /// The converter keeps of Llama 3's scaling only the divisor of each frequency. The parameters of the released models are
    /// tried: those that give the stored divisors are the answer, and a file that none fits is refused, not guessed at.
    private func llama3Scaling(theta: Double, headSize: Int) throws -> JSONValue {
        let stored = try file.tensor(named: "rope_freqs.weight").values(Float.self)
        guard let factor = stored.max(), factor >= 1, stored.count == headSize / 2 else {
            throw CheckpointError(.malformed, file.path, "'rope_freqs.weight' does not fit heads of \(headSize)")
        }
        for original in [8192, 4096, 2048, 16384, 32768] {
            let expected = (0..<stored.count).map { index -> Double in
                let wavelength = 2 * Double.pi * pow(theta, Double(2 * index) / Double(headSize))
                let (low, high) = (Double(original) / 1, Double(original) / 4)
                if wavelength < high { return 1 }
                if wavelength > low { return Double(factor) }
                let smooth = (Double(original) / wavelength - 1) / (4 - 1)
                return 1 / ((1 - smooth) / Double(factor) + smooth)
            }
            guard zip(expected, stored).allSatisfy({ abs($0 - Double($1)) <= 1e-3 * $0 }) else { continue }
            return .object([
                "factor": .double(Double(factor)), "high_freq_factor": .double(4), "low_freq_factor": .double(1),
                "original_max_position_embeddings": .int(original), "rope_type": .string("llama3"),
            ])
        }
        throw CheckpointError(
            .unsupported, file.path, "the rotary frequencies in 'rope_freqs.weight' fit no known Llama 3 scaling",
            remedy: "use the safetensors checkpoint of this model")
    }
}
