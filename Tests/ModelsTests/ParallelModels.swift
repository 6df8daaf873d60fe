import Checkpoints
import Collectives
import Models
import TensorCore
import TestSupport
import Testing

/// Ranks that share a model of a family, as threads, and each with the whole of it beside.
struct ParallelModels {
    struct Layout: Sendable, CustomTestStringConvertible {
        var sizes: [MeshAxis: Int]
        var splitsTokens = false
        var checkpointing = ActivationCheckpointing.none
        var shape: MeshShape { MeshShape(sizes) }
        var testDescription: String {
            shape.description + (splitsTokens ? ", tokens split" : "")
                + (checkpointing.mode == .none ? "" : ", \(checkpointing)")
        }
    }

    struct TensorWeights: WeightSource {
        let tensors: [String: Tensor]
        init(_ model: any SequenceModel) throws {
            tensors = Dictionary(uniqueKeysWithValues: try model.namedTensors().map { ($0.name, $0.tensor) })
        }
        func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
            let tensor = try #require(tensors[name], "\(name)")
            return try tensor.detached().to(device, dtype: dtype)
        }
        func contains(_ name: String) -> Bool { tensors[name] != nil }
        func problem(_ name: String, shape: [Int]) -> WeightProblem? {
            guard let found = tensors[name]?.shape else { return .missing(name) }
            return found == shape ? nil : .shape(name, found: found, wanted: shape)
        }
        var tensorNames: [String] { Array(tensors.keys) }
    }

    /// A rank's tools.
    struct Rank {
        let mesh: DeviceMesh
        let context: ParallelContext
        let whole: any CausalLanguageModel
        let part: any CausalLanguageModel
        /// Which sequences it sees, of how many such sets.
        var data: Int { mesh.coordinate(.expert) }
        var dataCount: Int { mesh.size(.expert) }
    }

    static func run(
        _ family: FamilyTests.Family, _ layout: Layout, _ body: @escaping @Sendable (Rank) throws -> Void
    ) throws {
        let store = try RendezvousStore.local()
        try onRanks(layout.shape.rankCount) { rank in
            let mesh = DeviceMesh(layout.shape, rank: rank, store: store, timeout: .seconds(60))
            let context = try ParallelContext(mesh, sequenceParallel: layout.splitsTokens)
            let whole = try family.model()
            let make = try #require(ModelRegistry.families[family.name + "ForCausalLM"])
            let part = try make(
                family.config(),
                ParameterBuilder(source: TensorWeights(whole), dtype: .float32, device: .cpu, parallel: context))
            part.checkpointing = layout.checkpointing
            try body(Rank(mesh: mesh, context: context, whole: whole, part: part))
        }
    }

    /// A loss over a pack in which sequences share prefixes; sequences differ with `data`.
    static func loss(_ model: any CausalLanguageModel, data: Int) throws -> Tensor {
        let ids = FamilyTests.ids.map { ($0 + 11 * Int64(data)) % 61 }
        let (hidden, record) = try model.recordingRouting {
            try model.hiddenStates(
                ids: Tensor(ids), positions: Tensor(FamilyTests.positions),
                attention: PackedAttention(segments: FamilyTests.segments))
        }
        // Not all rows, and some twice: their gradients add up.
        let rows = (0..<ids.count).filter { $0 % 7 != 3 } + [5]
        let targets = rows.map { ids[($0 + 1) % ids.count] }
        let (logProbs, entropies) = try model.tokenLogProbs(
            hidden: hidden.indexSelect(0, Tensor(rows.map(Int64.init))), targets: Tensor(targets), temperature: 0.8,
            chunk: 7)
        let weights = try Tensor(rows.map { 1 + Float($0 % 5) }).divided(by: 100)
        var loss = try logProbs.multiplied(by: weights).sum().negated()
            .adding(entropies.multiplied(by: weights).sum().multiplied(by: 0.3))
        if let balance = try record.loadBalancingLoss() { loss = try loss.adding(balance.multiplied(by: 0.1)) }
        return loss
    }

    /// The largest difference, relative to the largest element of what is expected.
    static func difference(_ actual: Tensor, _ expected: Tensor) throws -> Double {
        guard actual.shape == expected.shape else { return .infinity }
        let size = try expected.abs().max().item()
        return try actual.subtracting(expected).abs().max().item() / max(size, 1e-8)
    }

    /// The part of a whole tensor that a box names.
    static func slice(_ whole: Tensor, _ box: ShardBox) throws -> Tensor {
        var part = whole
        for (dim, range) in box.ranges.enumerated() { part = try part.narrowed(dim, range) }
        return part
    }

    /// Expects that the ranks' gradients, summed along the parameters' axes, are the whole model's.
    static func compareGradients(
        _ part: any SequenceModel, _ whole: any SequenceModel, _ mesh: DeviceMesh
    ) throws {
        var wanted: [String: Tensor] = [:]
        for parameter in whole.parameters {
            let gradient = try parameter.tensor.grad() ?? Tensor.zeros(parameter.tensor.shape)
            for (name, part) in try parameter.split(gradient) { wanted[name] = part }
        }
        for parameter in part.parameters {
            let sum = try (parameter.tensor.grad() ?? Tensor.zeros(parameter.tensor.shape)).contiguous()
            if let group = try mesh.group(parameter.gradientAxes) { try group.allReduce([sum]) }
            for shard in try parameter.shards(of: sum, rows: 0..<sum.size(0)) {
                let whole = try #require(wanted[shard.box.name])
                let bound = 1e-5 * max(try whole.abs().max().item(), 1e-3)
                let worst = try shard.tensor.subtracting(slice(whole, shard.box)).abs().max().item()
                #expect(worst <= bound, "gradient of \(shard.box.name) \(shard.box.ranges)")
            }
        }
    }

    static let mixtures: [FamilyTests.Family] = FamilyTests.families.compactMap { family in
        var family = family
        switch family.name {
        case "Mixtral": family.settings["num_local_experts"] = .int(8)
        case "Qwen3Moe": family.settings["num_experts"] = .int(8)
        case "DeepseekV3": break
        default: return nil
        }
        return family
    }

    static let families: [FamilyTests.Family] =
        FamilyTests.families + [
            .init(
                name: "Llama",
                settings: [
                    "attention_bias": .bool(true), "mlp_bias": .bool(true), "tie_word_embeddings": .bool(true),
                ], note: "biases, tied"),
            .init(
                name: "Olmo2", settings: ["attention_bias": .bool(true), "num_key_value_heads": .int(4)],
                note: "4 heads"),
        ]

    static let dense: [Layout] = [
        .init(sizes: [.tensor: 2]),
        .init(sizes: [.tensor: 4]),
        .init(sizes: [.tensor: 4], checkpointing: .selective()),
        .init(sizes: [.tensor: 2], splitsTokens: true),
        .init(sizes: [.tensor: 4], splitsTokens: true, checkpointing: .full),
        .init(sizes: [.sequence: 2]),
        .init(sizes: [.sequence: 4], checkpointing: .selective()),
        .init(sizes: [.sequence: 2, .tensor: 2]),
        .init(sizes: [.sequence: 2, .tensor: 2], splitsTokens: true),
    ]

    static let sparse: [Layout] = [
        .init(sizes: [.expert: 2]),
        .init(sizes: [.expert: 4], checkpointing: .full),
        .init(sizes: [.expert: 2, .tensor: 2]),
        .init(sizes: [.expert: 2, .tensor: 2], splitsTokens: true),
        .init(sizes: [.expert: 2, .sequence: 2]),
    ]
}
