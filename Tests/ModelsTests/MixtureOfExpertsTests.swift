import Checkpoints
import Foundation
import OrderedCollections
import TensorCore
import Testing

@testable import Models

/// Small models of the families with experts: what their routers report, and what a checkpoint may look like. That packs and cached
/// decoding agree with the full forward pass is tested with the other families.
@Suite struct MixtureOfExpertsTests {
    struct Family: Sendable, CustomTestStringConvertible {
        let architecture: String
        let settings: JSONObject
        var testDescription: String { architecture }

        static let common: JSONObject = [
            "vocab_size": .int(31), "hidden_size": .int(24), "num_attention_heads": .int(4),
            "num_key_value_heads": .int(2), "intermediate_size": .int(20), "max_position_embeddings": .int(64),
            "num_experts_per_tok": .int(2), "num_hidden_layers": .int(3), "tie_word_embeddings": .bool(false),
        ]
        static let mixtral = Family(
            architecture: "MixtralForCausalLM", settings: ["num_local_experts": .int(5), "sliding_window": .int(4)])
        static let qwen = Family(
            architecture: "Qwen3MoeForCausalLM",
            settings: [
                "num_experts": .int(6), "moe_intermediate_size": .int(8), "head_dim": .int(8),
                "mlp_only_layers": .array([.int(1)]), "norm_topk_prob": .bool(true),
            ])
        static let deepseek = Family(
            architecture: "DeepseekV3ForCausalLM",
            settings: [
                "num_key_value_heads": .int(4), "n_routed_experts": .int(8), "n_shared_experts": .int(1),
                "moe_intermediate_size": .int(8), "n_group": .int(4), "topk_group": .int(2), "q_lora_rank": .int(12),
                "kv_lora_rank": .int(10), "qk_rope_head_dim": .int(4), "qk_nope_head_dim": .int(6),
                "v_head_dim": .int(8), "first_k_dense_replace": .int(1),
            ])
        static let all = [mixtral, qwen, deepseek]

        func config(_ changes: JSONObject = [:]) -> ModelConfig {
            var object = Self.common.merging(settings) { $1 }.merging(changes) { $1 }
            object["architectures"] = .array([.string(architecture)])
            return ModelConfig(object)
        }

        func model(_ changes: JSONObject = [:]) throws -> any CausalLanguageModel {
            let make = try #require(ModelRegistry.families[architecture])
            return try make(
                config(changes),
                ParameterBuilder(
                    source: RandomWeights(seed: 3, standardDeviation: 0.3), dtype: .float32, device: .cpu))
        }
    }

    /// What is exported without an adapter is every tensor of the checkpoint, those too that are not trained.
    @Test(arguments: Family.all) func whatIsExportedIsWhole(_ family: Family) throws {
        let model = try family.model()
        #expect(try model.mergedTensors().map(\.name) == model.namedTensors().map(\.name))
    }

    let sequences: [[Int64]] = [[3, 9, 27, 5], [1, 30, 2, 8, 8, 8, 17, 4, 11], [6]]

    func pack(_ model: any CausalLanguageModel) throws -> Tensor {
        var segments: [PackedSegment] = [], start = 0
        for sequence in sequences {
            segments.append(PackedSegment(start: start, length: sequence.count))
            start += sequence.count
        }
        return try model.hiddenStates(
            ids: Tensor(sequences.flatMap { $0 }),
            positions: Tensor(sequences.flatMap { Array(0..<Int64($0.count)) }),
            attention: PackedAttention(segments: segments))
    }

    func expectClose(_ a: Tensor, _ b: Tensor, _ comment: Comment, _ tolerance: Double = 2e-5) throws {
        let bound = tolerance * max(1, try b.detached().abs().max().item())
        #expect(try a.detached().subtracting(b.detached()).abs().max().item() <= bound, comment)
    }

    /// Loss over hidden states and the balancing loss, in one backward pass, with activations kept and with layers run again.
    @Test(arguments: Family.all) func checkpointingChangesNoGradient(family: Family) throws {
        let model = try family.model()
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        func gradients(_ again: Bool) throws -> ([Tensor], Double, [ExpertLoad]) {
            model.checkpointing = again ? .full : .none
            let (balance, loads) = try withGrad {
                let (hidden, record) = try model.recordingRouting { try pack(model) }
                let balance = try #require(try record.loadBalancingLoss())
                try hidden.squared().mean().adding(balance).backward()
                return (try balance.item(), try record.loads())
            }
            let grads = try model.parameters.map { parameter in
                let grad = try parameter.tensor.grad()?.cloned() ?? Tensor.zeros(parameter.tensor.shape)
                try parameter.tensor.setGrad(nil)
                return grad
            }
            return (grads, balance, loads)
        }
        let kept = try gradients(false), again = try gradients(true)
        #expect(kept.1 == again.1 && kept.2 == again.2)
        let experts = try #require(model.experts)
        #expect(kept.2.map(\.layer) == experts.layers)
        #expect(kept.2.allSatisfy { $0.tokens.reduce(0, +) == 14 * experts.expertsPerToken })
        for (index, parameter) in model.parameters.enumerated() {
            try expectClose(again.0[index], kept.0[index], "gradient of \(parameter.name)")
        }
        let router = try #require(model.parameters.firstIndex { $0.name.hasSuffix(".gate.weight") })
        #expect(try kept.0[router].abs().max().item() > 0)
    }

    @Test func nothingIsRecordedUnasked() throws {
        let model = try Family.qwen.model()
        let (_, record) = try model.recordingRouting { try withNoGrad { try pack(model) } }
        #expect(record.layers.map(\.index) == [0, 2])
        _ = try withNoGrad { try pack(model) }
        #expect(record.layers.count == 2)
        let dense = try Family.qwen.model(["mlp_only_layers": .array([.int(0), .int(1), .int(2)])])
        #expect(dense.experts == nil)
        let (_, empty) = try dense.recordingRouting { try withNoGrad { try pack(dense) } }
        #expect(try empty.loadBalancingLoss() == nil)
    }

    // MARK: - Checkpoints

    func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
        let folder = NSTemporaryDirectory() + "fledge-experts-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        return try body(folder)
    }

    func tensors(_ model: any CausalLanguageModel) throws -> [(name: String, tensor: Tensor)] {
        try model.namedTensors().map { (name: $0.name, tensor: try $0.tensor.contiguous()) }
    }

    func reloaded(
        _ family: Family, _ tensors: [(name: String, tensor: Tensor)], _ changes: JSONObject = [:]
    ) throws -> any CausalLanguageModel {
        try withFolder { folder in
            try HuggingFaceExporter.write(tensors: tensors, config: family.config(changes), to: folder)
            return try ModelRegistry.load(ModelSource.open(folder))
        }
    }

    @Test(arguments: Family.all) func anExportHoldsEachExpertByItsNameAndLoadsAgain(family: Family) throws {
        let model = try family.model(), tensors = try tensors(model)
        let names = Set(tensors.map(\.name))
        let expert =
            family.architecture.hasPrefix("Mixtral")
            ? "model.layers.2.block_sparse_moe.experts.4.w2.weight" : "model.layers.2.mlp.experts.5.down_proj.weight"
        #expect(names.contains(expert) && names.count == tensors.count)
        #expect(!names.contains { $0.contains("gate_up_proj") || $0.contains("qkv") })
        let copy = try reloaded(family, tensors)
        #expect(try withNoGrad { try pack(copy).equals(pack(model)) })
    }

    /// `transformers` 5 can write the experts of a layer as one tensor.
    @Test(arguments: Family.all) func expertsStoredAsOneTensorAreReadToo(family: Family) throws {
        let model = try family.model(), experts = try #require(model.experts)
        var fused: [(name: String, tensor: Tensor)] = []
        for (name, tensor) in try tensors(model) where !name.contains(".experts.") {
            fused.append((name.replacingOccurrences(of: "block_sparse_moe", with: "mlp"), tensor))
        }
        for parameter in model.parameters where parameter.name.contains(".experts.") {
            let size = parameter.tensor.shape
            let name = parameter.name.replacingOccurrences(of: "block_sparse_moe", with: "mlp")
            fused.append(
                (
                    String(name.dropLast(".weight".count)),
                    try parameter.tensor.reshaped([experts.experts, size[0] / experts.experts, size[1]])
                ))
        }
        let copy = try reloaded(family, fused)
        #expect(try withNoGrad { try pack(copy).equals(pack(model)) })
        #expect(try copy.namedTensors().map(\.name).sorted() == model.namedTensors().map(\.name).sorted())
        fused.removeAll { $0.name.hasSuffix("layers.2.mlp.experts.down_proj") }
        #expect(throws: ModelError.self) { _ = try reloaded(family, fused) }
    }

    @Test func theSelectionBiasIsKeptInFloat32AndNotTrained() throws {
        let name = "model.layers.1.mlp.gate.e_score_correction_bias"
        let model = try Family.deepseek.model()
        #expect(!model.parameters.contains { parameter in parameter.parts.contains { $0.name == name } })
        let copy = try withFolder { folder in
            try HuggingFaceExporter.write(tensors: tensors(model), config: Family.deepseek.config(), to: folder)
            return try ModelRegistry.load(ModelSource.open(folder), dtype: .bfloat16)
        }
        let wanted = try #require(try model.namedTensors().first { $0.name == name })
        let found = try #require(try copy.namedTensors().first { $0.name == name })
        #expect(found.tensor.dtype == .float32)
        #expect(try found.tensor.equals(wanted.tensor))
        #expect(copy.dtype == .bfloat16)
    }

    @Test func layersForPredictingSeveralTokensAreLeftAside() throws {
        let model = try Family.deepseek.model()
        let extra = try tensors(model) + [(name: "model.layers.3.eh_proj.weight", tensor: try Tensor.zeros([2, 2]))]
        #expect(throws: ModelError.self) { _ = try reloaded(.deepseek, extra) }
        let copy = try reloaded(.deepseek, extra, ["num_nextn_predict_layers": .int(1)])
        #expect(try withNoGrad { try pack(copy).equals(pack(model)) })
    }

    @Test func latentAttentionKeepsKeysAndValuesOfTheirOwnSizes() throws {
        let shape = try Family.deepseek.model().shape
        #expect(shape.headDim == 10 && shape.valueHeadDim == 8 && shape.keyValueHeads == 4)
    }

    @Test func settingsThatDoNotFitAreRefused() throws {
        func refuses(_ family: Family, _ changes: JSONObject, _ word: String) {
            let error = #expect(throws: ModelError.self) { _ = try family.model(changes) }
            #expect(error?.code == .unsupported && error?.message.contains(word) == true, "\(changes)")
        }
        refuses(.mixtral, ["num_experts_per_tok": .int(6)], "num_experts_per_tok")
        refuses(.mixtral, ["num_local_experts": .int(0)], "num_local_experts")
        refuses(.mixtral, ["hidden_act": .string("foo")], "hidden_act")
        refuses(.mixtral, ["router_aux_loss_coef": .double(-1)], "router_aux_loss_coef")
        refuses(.qwen, ["decoder_sparse_step": .int(0)], "decoder_sparse_step")
        refuses(.qwen, ["moe_intermediate_size": .int(0)], "moe_intermediate_size")
        refuses(.deepseek, ["n_group": .int(3)], "n_group")
        refuses(.deepseek, ["n_group": .int(8)], "n_group")
        refuses(.deepseek, ["topk_group": .int(5)], "topk_group")
        refuses(.deepseek, ["num_experts_per_tok": .int(5)], "topk_group")
        refuses(.deepseek, ["num_key_value_heads": .int(2)], "num_key_value_heads")
        refuses(.deepseek, ["qk_rope_head_dim": .int(3)], "qk_rope_head_dim")
        refuses(.deepseek, ["q_lora_rank": .int(0)], "q_lora_rank")
        refuses(.deepseek, ["scoring_func": .string("softmax")], "scoring_func")
        refuses(.deepseek, ["quantization_config": .object(["quant_method": .string("fp8")])], "quantization_config")
        refuses(.deepseek, ["rope_scaling": .object(["rope_type": .string("foo")])], "foo")
    }
}
