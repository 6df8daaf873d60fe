import Checkpoints
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Models

/// A Llama of one size for all, with or without a bias on its projections.
func loraModel(dtype: DType = .float32, bias: Bool = false, tied: Bool = false) throws -> LlamaModel {
    let config = LlamaConfig(
        shape: ModelShape(
            vocabulary: 29, hidden: 16, layers: 2, queryHeads: 4, keyValueHeads: 2, headDim: 8, maxPositions: 64),
        intermediate: 24, normEps: 1e-5, rotary: RotaryFrequencies(headDim: 8, theta: 10000), attentionBias: bias,
        mlpBias: bias, tiedEmbeddings: tied)
    return try LlamaModel(
        config,
        ParameterBuilder(source: RandomWeights(seed: 5, standardDeviation: 0.3), dtype: dtype, device: .cpu))
}

extension CausalLanguageModel {
    /// Adds an adapter that does something: B is not zero.
    @discardableResult
    func addRandomAdapter(_ settings: LoRASettings, seed: UInt64 = 9) throws -> LoRA {
        let generator = try RandomGenerator(seed: seed)
        return try addAdapter(settings) { _, shape in
            try Tensor.randomNormal(shape, generator: generator).multiplied(by: 0.3)
        }
    }

    func logits(_ ids: [Int64]) throws -> Tensor {
        try logits(
            hiddenStates(
                ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)])))
    }
}

func distance(_ a: Tensor, _ b: Tensor) throws -> Double {
    try a.detached().to(dtype: .float64).subtracting(b.detached().to(dtype: .float64)).abs().max().item()
}

@Suite struct LoRATests {
    static let ids: [Int64] = (0..<13).map { $0 * 7 % 29 }

    @Test func aFreshAdapterChangesNothingAndIsDrawnAsPEFTDraws() throws {
        let model = try loraModel()
        let before = try withNoGrad { try model.logits(Self.ids) }
        let lora = try model.addAdapter(LoRASettings(rank: 6, seed: 3))
        #expect(try withNoGrad { try model.logits(Self.ids) }.equals(before))
        for parameter in lora.parameters where parameter.name.hasSuffix(".lora_A") {
            let bound = 1 / Double(parameter.tensor.size(1)).squareRoot()
            let values = try parameter.tensor.values(Float.self).map(Double.init)
            #expect(values.allSatisfy { abs($0) <= bound })
            // Of a uniform distribution: its spread, and its mean within what so many draws allow.
            let mean = values.reduce(0, +) / Double(values.count)
            let deviation = (values.reduce(0) { $0 + $1 * $1 } / Double(values.count)).squareRoot()
            #expect(abs(mean) < 4 * bound / Double(3 * values.count).squareRoot())
            #expect(abs(deviation / bound - 1 / 3.0.squareRoot()) < 0.1)
        }
        // A layer's first values do not depend on what else is adapted.
        let other = try loraModel()
        let few = try other.addAdapter(LoRASettings(rank: 6, targets: .modules(["v_proj"]), seed: 3))
        let all = try lora.parameters.flatMap { try $0.split() }
        for (name, tensor) in try few.parameters.flatMap({ try $0.split() }) {
            #expect(try #require(all.first { $0.name == name }).tensor.equals(tensor))
        }
    }

    /// The factored product and its gradients are those of the dense weight W + s·B·A, in every choice of a fused
    /// projection's parts.
    @Test(arguments: [["q_proj", "k_proj", "v_proj"], ["k_proj"], ["q_proj", "v_proj"], ["k_proj", "v_proj"]])
    func gradientsAreThoseOfTheDenseForm(targets: [String]) throws {
        let model = try loraModel(bias: true)
        let lora = try model.addRandomAdapter(
            LoRASettings(rank: 3, alpha: 7, targets: .modules(targets.map { "layers.0.self_attn.\($0)" })))
        #expect(lora.modules == targets.map { "model.layers.0.self_attn.\($0)" })
        let projection = try #require(model.projections.first { $0.adapter != nil })
        let adapter = try #require(projection.adapter)
        let x = try Tensor.randomNormal([5, 16], generator: RandomGenerator(seed: 1))
        let a = try adapter.down.detached().cloned(), b = try adapter.up.detached().cloned()
        for tensor in [adapter.down, adapter.up, a, b] { try tensor.setRequiresGrad() }
        func loss(_ y: Tensor) throws -> Tensor { try y.squared().multiplied(by: y.sigmoid()).sum() }
        try withGrad {
            try loss(projection(x)).backward()
            var rows: [Tensor] = [], filled = 0
            for (index, part) in adapter.parts.enumerated() {
                rows.append(try Tensor.zeros([part.rows.lowerBound - filled, 16]))
                rows.append(
                    try b.narrowed(0, part.rowsInB).matmul(a.narrowed(0, index * 3..<index * 3 + 3)).multiplied(
                        by: 7.0 / 3))
                filled = part.rows.upperBound
            }
            rows.append(try Tensor.zeros([projection.weight.size(0) - filled, 16]))
            let dense = try projection.weight.adding(Tensor.concatenate(rows))
            try loss(x.linear(dense, bias: projection.bias)).backward()
        }
        for (mine, other) in [(adapter.down, a), (adapter.up, b)] {
            let wanted = try #require(try other.grad())
            #expect(try distance(#require(try mine.grad()), wanted) < 1e-5 * wanted.abs().max().item())
        }
        // Without a graph the same sum is made in place.
        #expect(try distance(withNoGrad { try projection(x) }, withGrad { try projection(x) }) < 1e-6)
    }

    @Test(arguments: [DType.float32, .bfloat16], [true, false])
    func mergingIsTakenBackBitForBit(dtype: DType, all: Bool) throws {
        let model = try loraModel(dtype: dtype)
        let base = try model.parameters.map { try $0.tensor.cloned() }
        let lora = try model.addRandomAdapter(
            LoRASettings(rank: 4, targets: all ? .allLinear : .modules(["v_proj", "down_proj"])))
        try withNoGrad {
            let beside = try model.logits(Self.ids)
            let tensors = try model.mergedTensors()
            try model.mergeAdapter()
            #expect(lora.isMerged)
            let folded = try model.logits(Self.ids)
            let scale = try beside.abs().max().item()
            #expect(try distance(folded, beside) < (dtype == .float32 ? 1e-5 : 0.1) * scale)
            for (merged, live) in zip(tensors, try model.namedTensors()) {
                #expect(merged.name == live.name)
                #expect(try merged.tensor.equals(live.tensor), "\(merged.name)")
            }
            try model.mergeAdapter()
            try model.unmergeAdapter()
            #expect(!lora.isMerged)
            for (before, parameter) in zip(base, model.parameters) {
                #expect(try parameter.tensor.equals(before), "\(parameter.name)")
            }
            #expect(try model.logits(Self.ids).equals(beside))
            try model.removeAdapter()
            #expect(model.adapter == nil)
            #expect(try !model.logits(Self.ids).equals(beside))
        }
    }

    @Test(arguments: [DType.float32, .bfloat16]) func packedWeightsCarryTheAdapter(dtype: DType) throws {
        let model = try loraModel(dtype: dtype)
        let lora = try model.addRandomAdapter(LoRASettings(rank: 4))
        let tolerance = dtype == .float32 ? 1e-4 : 0.3
        try withNoGrad {
            let plain = try model.logits(Self.ids), base = try lora.disabled { try model.logits(Self.ids) }
            for merging in [false, true] {
                try model.packProjections(rows: 13, merging: merging)
                #expect(try distance(model.logits(Self.ids), plain) < tolerance)
                #expect(try distance(lora.disabled { try model.logits(Self.ids) }, base) < tolerance)
            }
            model.unpackProjections()
            #expect(try model.logits(Self.ids).equals(plain))
        }
    }

    @Test func onlyTheAdapterIsTrainable() throws {
        let model = try loraModel(tied: true)
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        let lora = try model.addRandomAdapter(LoRASettings(rank: 2))
        #expect(model.trainableParameters.map(\.name) == lora.parameters.map(\.name))
        #expect(model.parameters.allSatisfy { !$0.tensor.requiresGrad })
        // 2 layers of 7 modules: inputs plus outputs of each, times the rank.
        let perLayer = (16 + 32) + 2 * (16 + 16) + (32 + 16) + 2 * (16 + 24) + (24 + 16)
        #expect(lora.parameterCount == 2 * 2 * perLayer)
        #expect(lora.modules.count == 14)
        #expect(!lora.modules.contains { $0.contains("embed") || $0.contains("lm_head") })
        #expect(throws: ModelError.self) { try model.addAdapter(LoRASettings(rank: 2)) }
    }

    @Test func namesAreMatchedAsPEFTDoes() throws {
        func modules(_ targets: LoRASettings.Targets, excluded: [String] = []) throws -> [String] {
            try loraModel().addAdapter(LoRASettings(rank: 1, targets: targets, excluded: excluded)).modules
        }
        #expect(try modules(.modules(["q_proj"])) == (0...1).map { "model.layers.\($0).self_attn.q_proj" })
        #expect(try modules(.modules(["1.mlp.up_proj"])) == ["model.layers.1.mlp.up_proj"])
        #expect(
            try modules(.modules(["up_proj", "q_proj"]), excluded: ["layers.0.mlp.up_proj", "q_proj"]) == [
                "model.layers.1.mlp.up_proj"
            ])
        #expect(try modules(.allLinear, excluded: ["mlp.up_proj", "q_proj", "k_proj", "v_proj", "o_proj"]).count == 4)
    }

    @Test(arguments: [
        (["proj"], "its linear layers are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        (["query"], "'query' is not in this model"), (["lm_head"], "not embeddings, norms or the output head"),
        (["embed_tokens"], "not embeddings"), (["input_layernorm"], "not embeddings"),
        ([".*_proj"], "regular expressions are not supported"), (["q_proj", "all-linear"], "all-linear alone"),
        ([], "no target module"),
    ])
    func targetsThatAreNoLinearLayerAreRefused(names: [String], message: String) throws {
        let model = try loraModel()
        let error = #expect(throws: ModelError.self) {
            try model.addAdapter(LoRASettings(rank: 1, targets: .modules(names)))
        }
        #expect(error?.code == .adapter && error?.message.contains(message) == true, "\(String(describing: error))")
        #expect(model.adapter == nil)
    }

    @Test(arguments: [
        LoRASettings(rank: 0), LoRASettings(rank: 1, alpha: 0), LoRASettings(rank: 1, alpha: .nan),
        LoRASettings(rank: 1, dropout: 1), LoRASettings(rank: 1, dropout: -0.1), LoRASettings(rank: 1, excluded: ["x"]),
        LoRASettings(rank: 1, targets: .modules(["q_proj"]), excluded: ["q_proj"]),
    ])
    func settingsThatMeanNothingAreRefused(settings: LoRASettings) throws {
        #expect(throws: ModelError.self) { try loraModel().addAdapter(settings) }
    }

    @Test func scalingIsPEFTs() {
        #expect(LoRASettings(rank: 8, alpha: 16).scale == 2)
        #expect(LoRASettings(rank: 4, alpha: 3, isRankStabilized: true).scale == 1.5)
    }

    /// In training a share of the inputs is not seen, the rest is scaled up; the same place gives the same mask.
    @Test func dropoutIsSeededAndOnlyInTraining() throws {
        let model = try loraModel()
        let lora = try model.addRandomAdapter(LoRASettings(rank: 4, dropout: 0.25, seed: 2))
        try withNoGrad {
            let plain = try model.logits(Self.ids)
            let first = try lora.training(step: 0, microBatch: 0) { try model.logits(Self.ids) }
            #expect(try !first.equals(plain))
            #expect(try lora.training(step: 0, microBatch: 0) { try model.logits(Self.ids) }.equals(first))
            #expect(try !lora.training(step: 0, microBatch: 1) { try model.logits(Self.ids) }.equals(first))
            #expect(try !lora.training(step: 1, microBatch: 0) { try model.logits(Self.ids) }.equals(first))
            #expect(try model.logits(Self.ids).equals(plain))
            let ones = try Tensor.ones([200, 100])
            let dropped = try lora.training(step: 0, microBatch: 0) { try lora.dropped(ones, by: "a") }
            let values = Set(try dropped.values(Float.self))
            #expect(values == [0, 1])
            #expect(abs(try dropped.mean().item() - 0.75) < 0.02)
            #expect(lora.scale == 4 && lora.training(step: 0, microBatch: 0) { lora.scale } == 4 / 0.75)
            #expect(try lora.training(step: 0, microBatch: 0) { try !lora.dropped(ones, by: "b").equals(dropped) })
        }
    }
}
