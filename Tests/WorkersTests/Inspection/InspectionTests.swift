import Checkpoints
import Foundation
import Models
import OrderedCollections
import TensorCore
import Testing
import Workers

/// A small Llama folder that tests break.
final class ModelFolder {
    let path = NSTemporaryDirectory() + "fledge-inspect-\(UUID().uuidString)"

    static let config: JSONObject = [
        "architectures": .array([.string("LlamaForCausalLM")]), "model_type": .string("llama"),
        "vocab_size": .int(31), "hidden_size": .int(16), "num_hidden_layers": .int(2), "num_attention_heads": .int(2),
        "num_key_value_heads": .int(1), "head_dim": .int(8), "intermediate_size": .int(24),
        "max_position_embeddings": .int(64), "rms_norm_eps": .double(1e-5), "tie_word_embeddings": .bool(false),
    ]

    static let tokenizer = """
        {"version": "1.0", "added_tokens": [{"id": 4, "content": "<end>", "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false}], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3},
        "merges": ["a b"]}}
        """
    static let template = """
        {% for m in messages %}{{ m.content }}<end>{% endfor %}
        """

    /// - Parameter parts: how many shards; one is a single file.
    init(
        config: JSONObject = ModelFolder.config, dtype: DType = .bfloat16, sharded: Bool = false,
        tensors edit: (inout [(name: String, tensor: Tensor)]) throws -> Void = { _ in }
    ) throws {
        let shape = ModelShape(
            vocabulary: 31, hidden: 16, layers: 2, queryHeads: 2, keyValueHeads: 1, headDim: 8, maxPositions: 64)
        let settings = LlamaConfig(
            shape: shape, intermediate: 24, normEps: 1e-5, rotary: RotaryFrequencies(headDim: 8, theta: 10000))
        let builder = ParameterBuilder(source: try RandomWeights(seed: 1), dtype: dtype, device: .cpu)
        var tensors = try LlamaModel(settings, builder).namedTensors()
            .map { (name: $0.name, tensor: try $0.tensor.contiguous()) }
        try edit(&tensors)
        try HuggingFaceExporter.write(
            tensors: tensors, config: ModelConfig(config), to: path, maxShardBytes: sharded ? 3000 : 1 << 30)
        try write(Self.tokenizer, "tokenizer.json")
        try write(#"{"eos_token": "<end>", "chat_template": "\#(Self.template)"}"#, "tokenizer_config.json")
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, _ name: String) throws {
        try text.write(toFile: path + "/" + name, atomically: true, encoding: .utf8)
    }
    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: path + "/" + name) }
}

@Suite struct InspectionTests {
    private func messages(
        _ inspection: ModelInspection, _ severity: InspectionFinding.Severity
    ) -> [String] { inspection.findings.filter { $0.severity == severity }.map(\.message) }

    @Test(arguments: [false, true])
    func describesAWholeModel(_ sharded: Bool) throws {
        let folder = try ModelFolder(sharded: sharded)
        let inspection = ModelInspector.inspect(folder.path)
        #expect(messages(inspection, .error) == [] && messages(inspection, .warning) == [])
        #expect(inspection.isUsable)
        #expect(inspection.architecture == "LlamaForCausalLM" && inspection.modelType == "llama")
        let parts = inspection.weights.parts
        #expect(parts[.embedding] == 31 * 16 && parts[.head] == 31 * 16)
        #expect(parts[.attention] == 2 * (16 * 16 + 2 * 8 * 16 + 16 * 16))
        #expect(parts[.mlp] == 2 * 3 * 24 * 16 && parts[.norms] == 5 * 16)
        #expect(parts[.other] == 0)
        #expect(inspection.weights.bytes == 2 * parts.total)
        #expect(inspection.weights.types.map(\.name) == ["bfloat16"])
        #expect((inspection.weights.files > 1) == sharded)
        #expect(inspection.contextLength == 64 && inspection.rope == "default, base 10000")
        #expect(inspection.attention == "full" && inspection.isTied == false)
        #expect(inspection.text.kind == "BPE" && inspection.text.vocabulary == 5)
        #expect(inspection.text.endOfTurn.map(\.id) == [4] && inspection.text.endOfTurn[0].text == "<end>")
        #expect(inspection.text.hasTemplate && inspection.text.templateMarksGeneration == false)
        #expect(inspection.json.objectValue?["usable"] == .bool(true))
        #expect(inspection.report.contains("Fledge can run this model."))
    }

    @Test func knowsRewardModels() throws {
        var config = ModelFolder.config
        config["architectures"] = .array([.string("LlamaForSequenceClassification")])
        config["id2label"] = .object(["0": .string("LABEL_0")])
        let folder = try ModelFolder(config: config) { tensors in
            tensors.removeAll { $0.name == "lm_head.weight" }
            tensors.append(("score.weight", try Tensor.ones([1, 16], dtype: .bfloat16)))
        }
        let whole = ModelInspector.inspect(folder.path)
        #expect(messages(whole, .error) == [])
        #expect(messages(whole, .info).contains { $0.contains("reward or value model") })
        let headless = try ModelFolder(config: config) { tensors in
            tensors.removeAll { $0.name == "lm_head.weight" }
        }
        #expect(messages(ModelInspector.inspect(headless.path), .error).contains { $0.contains("score.weight") })
    }

    /// The estimates by hand for 2 layers of 16.
    @Test func estimatesMemoryByTheFormulae() throws {
        let folder = try ModelFolder()
        var workload = MemoryEstimate.Workload()
        (workload.tokens, workload.sequences, workload.microBatchTokens, workload.rank) = (10, 3, 100, 4)
        let inspection = ModelInspector.inspect(folder.path, workload: workload)
        let count = inspection.weights.parts.total
        func parts(_ method: String, _ dtype: DType) -> [String: Int] {
            let estimate = inspection.memory.first { $0.method == method && $0.dtype == dtype }
            return Dictionary(uniqueKeysWithValues: estimate?.parts.map { ($0.name, $0.bytes) } ?? [])
        }
        #expect(parts("inference", .bfloat16) == ["weights": 2 * count, "cache": 3 * 10 * 2 * 16 * 2])
        // Two layers' inputs and the final norm's 2·16; of one layer again two sums, two norms and a gradient 5·16, queries, keys
        // and values 32, attention's result 16 and 2 heads' log-sum-exps, gate and up 2·24 and 3·24 more for their gradients.
        let layer = (5 * 16 + 32 + 16 + 2 * 24 + 3 * 24) * 2 + 4 * 2
        let logits = 100 * 32 * 2 + 2 * 100 * 16 * 2 + 12 * 100
        #expect(layer * 100 > logits)
        let activations = 100 * 2 * 16 * 2 + 2 * 100 * 16 * 2 + 100 * layer
        let full = parts("sft, full", .bfloat16)
        #expect(full == ["weights": 2 * count, "optimizer and gradients": 18 * count, "activations": activations])
        #expect(parts("sft, full", .float32)["optimizer and gradients"] == 12 * count)
        // q 16+16, k and v 16+8 each, o 16+16, gate and up 16+24 each, down 24+16; two layers.
        let rows = 2 * (32 + 24 + 24 + 32 + 40 + 40 + 40)
        #expect(parts("sft, lora", .bfloat16)["adapters"] == 4 * rows * 20)
        #expect(parts("grpo, full, with reference", .bfloat16)["reference"] == 2 * count)
    }

    @Test func namesWhatIsWrongWithTheWeights() throws {
        let folder = try ModelFolder(tensors: { tensors in
            tensors.removeAll { $0.name == "model.norm.weight" }
            let index = tensors.firstIndex { $0.name.hasSuffix("0.mlp.up_proj.weight") }!
            tensors[index].tensor = try Tensor.zeros([23, 16])
            tensors.append(("model.extra.weight", try Tensor.zeros([3])))
        })
        let errors = messages(ModelInspector.inspect(folder.path), .error)
        #expect(errors.contains { $0.contains("'model.norm.weight' is missing") })
        #expect(errors.contains { $0.contains("up_proj") && $0.contains("[23, 16]") && $0.contains("[24, 16]") })
        #expect(errors.contains { $0.contains("model.extra.weight") })
        #expect(errors.count == 3)
    }

    @Test func aMissingShardAndAnEscapingOneAreFindings() throws {
        let folder = try ModelFolder(sharded: true)
        let shards = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            .filter { $0.hasPrefix("model-00002") }
        try folder.remove(shards[0])
        let errors = messages(ModelInspector.inspect(folder.path), .error)
        #expect(errors.contains { $0.contains(shards[0]) && $0.contains("is missing") })
        try folder.write(#"{"weight_map": {"a": "../../secret.safetensors", "b": 3}}"#, "model.safetensors.index.json")
        let escaped = messages(ModelInspector.inspect(folder.path), .error)
        #expect(escaped.count { $0.contains("no plain file name") } == 2)
    }

    /// Each change of the configuration, and what the report must say.
    static let badConfigs: [(name: String, change: @Sendable (inout JSONObject) -> Void, text: String)] = [
        (
            "architecture", { $0["architectures"] = .array([.string("MambaForCausalLM")]) },
            "'MambaForCausalLM' is not known"
        ),
        ("rope", { $0["rope_scaling"] = .object(["rope_type": .string("foo")]) }, "foo"),
        ("negative", { $0["num_attention_heads"] = .int(-2) }, "num_attention_heads"),
        ("huge", { $0["hidden_size"] = .int(.max) }, "hidden_size"),
        ("NaN", { $0["vocab_size"] = .double(.nan) }, "vocab_size"),
        ("text", { $0["num_hidden_layers"] = .string("two") }, "num_hidden_layers"),
        ("many layers", { $0["num_hidden_layers"] = .int(1 << 22) }, "is missing"),
        ("quantised", { $0["quantization_config"] = .object(["quant_method": .string("gptq")]) }, "gptq"),
        ("small vocabulary", { $0["vocab_size"] = .int(3) }, "embedding only 3 rows"),
        ("latent", { $0["kv_lora_rank"] = .int(.max) }, "kv_lora_rank"),
        (
            "rotated share",
            {
                $0["architectures"] = .array([.string("Phi3ForCausalLM")])
                $0["partial_rotary_factor"] = .double(.nan)
            }, "partial_rotary_factor"
        ),
        ("experts", { $0["num_experts"] = .int(-1) }, "num_experts"),
        (
            "extra layers",
            {
                $0["num_nextn_predict_layers"] = .int(.max); $0["num_hidden_layers"] = .int(.min)
            }, "num_hidden"
        ),
        ("layer types", { $0["layer_types"] = .int(3) }, "layer_types"),
        (
            "no architecture",
            {
                $0["architectures"] = nil; $0["model_type"] = nil
            }, "names the architecture"
        ),
    ]

    @Test(arguments: badConfigs.map(\.name))
    func aBadConfigurationIsAFindingThatNamesTheField(_ name: String) throws {
        let (_, change, text) = try #require(Self.badConfigs.first { $0.name == name })
        var config = ModelFolder.config
        change(&config)
        let folder = try ModelFolder(config: config)
        let inspection = ModelInspector.inspect(folder.path)
        #expect(messages(inspection, .error).contains { $0.contains(text) }, "\(inspection.report)")
        #expect(!inspection.isUsable)
        // The rest is still described.
        #expect(inspection.weights.parts.total > 0 && inspection.text.kind == "BPE")
    }

    /// Each damage to a file, and a piece of the finding.
    static let damages: [(name: String, damage: @Sendable (ModelFolder) throws -> Void, text: String)] = [
        ("no config", { try $0.remove("config.json") }, "no config.json"),
        ("bad config", { try $0.write("{", "config.json") }, "bad JSON"),
        ("deep config", { try $0.write(String(repeating: "[", count: 100_000), "config.json") }, "nested deeper"),
        ("no weights", { try $0.remove("model.safetensors") }, "there are no weights"),
        ("cut weights", { try $0.write("12345", "model.safetensors") }, "model.safetensors"),
        (
            "pickle",
            {
                try $0.remove("model.safetensors")
                try $0.write("x", "pytorch_model.bin")
            }, "pickle"
        ),
        (
            "git-lfs", { try $0.write("version https://git-lfs.github.com/spec/v1\n", "model.safetensors") },
            "git lfs pull"
        ),
        ("no tokenizer", { try $0.remove("tokenizer.json") }, "no tokenizer"),
        ("bad tokenizer", { try $0.write(#"{"model": {"type": "Foo"}}"#, "tokenizer.json") }, "tokenizer.json"),
        (
            "bad template", { try $0.write("{% for %}", "chat_template.jinja") }, "line 1"
        ),
        ("bad generation config", { try $0.write("[]", "generation_config.json") }, "generation_config.json"),
        (
            "end token outside", { try $0.write(#"{"eos_token_id": [4, 99]}"#, "generation_config.json") },
            "end token 99"
        ),
    ]

    @Test(arguments: damages.map(\.name))
    func damageIsAFinding(_ name: String) throws {
        let (_, damage, text) = try #require(Self.damages.first { $0.name == name })
        let folder = try ModelFolder()
        try damage(folder)
        let inspection = ModelInspector.inspect(folder.path)
        #expect(messages(inspection, .error).contains { $0.contains(text) }, "\(inspection.report)")
        #expect(inspection.json.objectValue?["usable"] == .bool(false))
    }

    @Test func whatMaySurpriseIsAWarning() throws {
        let folder = try ModelFolder()
        try folder.write(#"{"eos_token": "c", "chat_template": "\#(ModelFolder.template)"}"#, "tokenizer_config.json")
        try folder.write("print()", "modeling_own.py")
        let other = messages(ModelInspector.inspect(folder.path), .warning)
        #expect(other.contains { $0.contains("'<end>' (4)") && $0.contains("run on") })
        #expect(other.contains { $0.contains("modeling_own.py") })
        try folder.write("{}", "tokenizer_config.json")
        let bare = messages(ModelInspector.inspect(folder.path), .warning)
        #expect(
            bare.contains { $0.contains("no chat template") } && bare.contains { $0.contains("no token ends a turn") })
    }

    @Test func whatIsNotThereIsSaid() {
        let inspection = ModelInspector.inspect("/nonexistent/model")
        #expect(!inspection.isUsable && inspection.report.contains("nothing here"))
    }

    @Test func describesTheQuickstartsGGUF() throws {
        let folder =
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().path + "/models/smollm2-135m-instruct"
        guard FileManager.default.fileExists(atPath: folder) else {
            print("SKIPPED: no \(folder); run scripts/setup")
            return
        }
        let inspection = ModelInspector.inspect(folder)
        #expect(inspection.isUsable, "\(inspection.report)")
        #expect(inspection.storage == .gguf && inspection.weights.parts.total == 134_515_008)
        #expect(inspection.text.endOfTurn.map(\.text) == ["<|im_end|>"])
        #expect(inspection.isTied == true)
    }
}
