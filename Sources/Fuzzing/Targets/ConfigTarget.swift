internal import Checkpoints
internal import Models
internal import TensorCore

/// A `config.json`, read by every model family up to where it asks for its first weight.
public struct ConfigTarget: FuzzTarget {
    public static let name = "config"
    public static let fileSuffixes = ["config.json"]
    private let file: TemporaryInput

    public init() throws { file = try TemporaryInput() }

    public func seeds() -> [[UInt8]] {
        [
            """
            {"architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 1, "eos_token_id": [2, 7],
            "head_dim": 8, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 128, "model_type": "llama",
            "max_position_embeddings": 512, "num_attention_heads": 8, "num_hidden_layers": 2, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-05, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128},
            "tie_word_embeddings": false, "vocab_size": 256}
            """,
            """
            {"architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
            "num_hidden_layers": 1, "rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 10000, "vocab_size": 9}
            """,
        ].map { Array($0.utf8) }
    }

    public func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) {
        if random.chance(percent: 85) {
            input = JSONMutator(input).mutated(splicing: other, &random)
        } else {
            ByteMutator.mutate(&input, splicing: other, &random)
        }
    }

    public func run(_ input: [UInt8]) throws {
        try file.fill(input)
        let config = try ModelConfig(path: file.path)
        // What is read can be written, and is then the same again, but for NaN and repeated keys.
        try require(!config.text.isEmpty, "the configuration has no text")
        for layerType in [nil, "full_attention", "sliding_attention"] { _ = try? config.rope(layerType: layerType) }
        guard let make = config.architecture.flatMap({ ModelRegistry.families[$0] }) else {
            throw ModelError(.unknownArchitecture, "no family")
        }
        do {
            _ = try make(config, ParameterBuilder(source: NoWeights(), dtype: .float32, device: .cpu))
        } catch is NoWeights.Reached {}
    }

    /// Ends the making of a model once its configuration is read: sizes that no machine has are not allocated.
    private struct NoWeights: WeightSource {
        struct Reached: Error {}
        func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor { throw Reached() }
        func finish(used: Set<String>) throws {}
    }
}
