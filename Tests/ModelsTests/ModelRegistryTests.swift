import Checkpoints
import Foundation
import Models
import OrderedCollections
import TensorCore
import Testing

@Suite struct ModelRegistryTests {
    static let config = LlamaConfig(
        shape: ModelShape(
            vocabulary: 31, hidden: 16, layers: 1, queryHeads: 2, keyValueHeads: 1, headDim: 8, maxPositions: 64),
        intermediate: 24, normEps: 1e-5, rotary: RotaryFrequencies(headDim: 8, theta: 10000))

    static let json: JSONObject = [
        "architectures": .array([.string("LlamaForCausalLM")]), "model_type": .string("llama"),
        "vocab_size": .int(31), "hidden_size": .int(16), "num_hidden_layers": .int(1), "num_attention_heads": .int(2),
        "num_key_value_heads": .int(1), "head_dim": .int(8), "intermediate_size": .int(24),
        "max_position_embeddings": .int(64), "rms_norm_eps": .double(1e-5), "tie_word_embeddings": .bool(false),
    ]

    /// Writes a small model with `change`s and tries to load it.
    func loadError(
        config change: (inout JSONObject) -> Void = { _ in },
        tensors edit: (inout [(name: String, tensor: Tensor)]) throws -> Void = { _ in }
    ) throws -> (any Error)? {
        let folder = NSTemporaryDirectory() + "fledge-models-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let model = try LlamaModel(
            Self.config, ParameterBuilder(source: RandomWeights(seed: 1), dtype: .float32, device: .cpu))
        var tensors = try model.namedTensors().map { (name: $0.name, tensor: try $0.tensor.contiguous()) }
        try edit(&tensors)
        var json = Self.json
        change(&json)
        try HuggingFaceExporter.write(tensors: tensors, config: ModelConfig(json), to: folder)
        do { _ = try ModelRegistry.load(ModelSource.open(folder)) } catch { return error }
        return nil
    }

    @Test func aWholeModelLoads() throws { #expect(try loadError() == nil) }

    @Test func anUnknownArchitectureIsNamedWithTheKnownOnes() throws {
        let error = try loadError(config: { $0["architectures"] = .array([.string("MambaForCausalLM")]) })
        let text = "\(try #require(error))"
        #expect(text.contains("MambaForCausalLM") && text.contains("LlamaForCausalLM"))
    }

    @Test func missingLeftOverAndMisshapenTensorsAreNamed() throws {
        let missing = try loadError(tensors: { $0.removeAll { $0.name == "model.norm.weight" } })
        #expect("\(try #require(missing))".contains("model.norm.weight"))
        let extra = try loadError(tensors: { $0.append(("model.layers.7.extra.weight", try Tensor.zeros([2]))) })
        #expect("\(try #require(extra))".contains("model.layers.7.extra.weight"))
        let shape = try loadError(tensors: { tensors in
            let index = tensors.firstIndex { $0.name == "model.norm.weight" }!
            tensors[index].tensor = try Tensor.zeros([15])
        })
        let text = "\(try #require(shape))"
        #expect(text.contains("[15]") && text.contains("[16]"))
    }

    @Test func everythingThatIsWrongWithTheWeightsIsNamedAtOnce() throws {
        let error = try loadError(tensors: { tensors in
            tensors.removeAll { $0.name == "model.norm.weight" || $0.name.hasSuffix("k_proj.weight") }
            let index = tensors.firstIndex { $0.name.hasSuffix("up_proj.weight") }!
            tensors[index].tensor = try Tensor.zeros([24, 16], dtype: .int8)
            tensors.append(("model.extra", try Tensor.zeros([1])))
        })
        let text = "\(try #require(error as? ModelError))"
        for name in ["model.norm.weight", "k_proj.weight' is missing", "up_proj.weight' holds int8", "model.extra"] {
            #expect(text.contains(name), "\(text)")
        }
    }

    /// A wrong size asks for no memory, and for no list of a million tensors.
    @Test func aConfigurationFarFromTheWeightsIsRefusedQuickly() throws {
        let wide = try loadError(config: { $0["intermediate_size"] = .int(1 << 24) })
        #expect("\(try #require(wide as? ModelError))".contains("16777216"))
        let deep = try loadError(config: { $0["num_hidden_layers"] = .int(1 << 23) })
        #expect("\(try #require(deep as? ModelError))".contains("more"))
    }

    @Test func settingsThatAreNotSupportedAreRefused() throws {
        #expect(try loadError(config: { $0["hidden_act"] = .string("gelu_magic") }) is ModelError)
        #expect(try loadError(config: { $0["rope_scaling"] = .object(["rope_type": .string("magic")]) }) is ModelError)
        #expect(try loadError(config: { $0["num_attention_heads"] = .int(0) }) is ModelError)
        #expect(try loadError(config: { $0["num_key_value_heads"] = .int(3) }) is ModelError)
        #expect(try loadError(config: { $0["hidden_size"] = .string("wide") }) is CheckpointError)
    }
}
