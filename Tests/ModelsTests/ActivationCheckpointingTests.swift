import Checkpoints
import OrderedCollections
import TensorCore
import Testing

@testable import Models

/// What layers keep for backward changes no bit of any gradient.
@Suite struct ActivationCheckpointingTests {
    typealias Family = FamilyTests.Family

    static let modes: [(name: String, mode: ActivationCheckpointing)] = [
        ("full", .full), ("full for two layers", ActivationCheckpointing(.full, layers: 2)),
        ("selective", .selective()), ("attention", .selective(keeps: .attention)),
        ("queries, keys, values", .selective(keeps: .queryKeyValue)), ("gate and up", .selective(keeps: .gateUp)),
        ("all", .selective(keeps: [.attention, .queryKeyValue, .gateUp])),
        ("two selective, then full", ActivationCheckpointing(.selective(.gateUp), layers: 2, rest: .full)),
    ]

    /// Log-probabilities, hidden states and gradients, in the order of the parameters.
    func run(_ model: any CausalLanguageModel, _ parameters: [Parameter], dtype: DType = .float32) throws -> [Tensor] {
        for parameter in parameters { try parameter.tensor.setRequiresGrad() }
        let (hidden, logProbs) = try withGrad {
            let (hidden, record) = try model.recordingRouting {
                try model.hiddenStates(
                    ids: Tensor(FamilyTests.ids), positions: Tensor(FamilyTests.positions),
                    attention: PackedAttention(segments: FamilyTests.segments))
            }
            let targets = try Tensor(FamilyTests.ids.reversed().map { $0 })
            let logProbs = try model.tokenLogProbs(hidden: hidden, targets: targets, chunk: 5).logProbs
            var loss = try logProbs.sum()
            if let balance = try record.loadBalancingLoss() { loss = try loss.adding(balance.multiplied(by: 0.3)) }
            try loss.backward()
            return (try hidden.detached(), try logProbs.detached())
        }
        return try [hidden, logProbs]
            + parameters.map { parameter in
                let grad = try parameter.tensor.grad()?.cloned() ?? Tensor.zeros(parameter.tensor.shape)
                try parameter.tensor.setGrad(nil)
                return grad
            }
    }

    func expectSame(_ a: [Tensor], _ b: [Tensor], _ names: [String], _ what: String) throws {
        for (index, name) in (["hidden states", "log-probabilities"] + names).enumerated() {
            #expect(try a[index].equals(b[index]), "\(name), \(what)")
        }
    }

    @Test(arguments: FamilyTests.families, [DType.float32, .bfloat16])
    func everyModeGivesTheSameBits(family: Family, dtype: DType) throws {
        let model = try family.model(dtype: dtype)
        let names = model.parameters.map(\.name)
        let plain = try run(model, model.parameters)
        #expect(try plain.dropFirst(2).contains { try $0.abs().max().item() > 0 })
        for (name, mode) in Self.modes {
            model.checkpointing = mode
            try expectSame(run(model, model.parameters), plain, names, name)
        }
        model.activationOffload = try ActivationOffload(device: .cpu)
        for (name, mode) in Self.modes.prefix(3) {
            model.checkpointing = mode
            try expectSame(run(model, model.parameters), plain, names, name + ", carried away")
        }
    }

    /// Adapters with dropout: masks are drawn alike in both runs, and what is kept is the projection without the adapter.
    @Test(arguments: [FamilyTests.families[0], FamilyTests.families[5], FamilyTests.families[13]])
    func everyModeGivesTheSameBitsWithAnAdapter(family: Family) throws {
        let model = try family.model()
        try model.addAdapter(LoRASettings(rank: 3, dropout: 0.2, seed: 4))
        let lora = try #require(model.adapter)
        let generator = try RandomGenerator(seed: 3)
        try withNoGrad {
            for parameter in lora.parameters where parameter.name.hasSuffix("lora_B") {
                try parameter.tensor.copy(
                    from: Tensor.randomNormal(parameter.tensor.shape, generator: generator).multiplied(by: 0.1))
            }
        }
        let names = lora.parameters.map(\.name)
        func run() throws -> [Tensor] {
            try lora.training(step: 1, microBatch: 2) { try self.run(model, lora.parameters) }
        }
        let plain = try run()
        #expect(try plain.dropFirst(2).contains { try $0.abs().max().item() > 0 })
        for (name, mode) in Self.modes {
            model.checkpointing = mode
            try expectSame(run(), plain, names, name)
        }
    }

    @Test func aModeHoldsForTheFirstLayersAndAnotherForTheRest() {
        let mixed = ActivationCheckpointing(.full, layers: 2, rest: .selective(.attention))
        #expect((0..<4).map { mixed.kept(layer: $0) } == [[], [], .attention, .attention])
        #expect(ActivationCheckpointing.none.kept(layer: 0) == nil)
        #expect(ActivationCheckpointing(.full, layers: 1).kept(layer: 1) == nil)
    }

    /// The last layer keeps what it keeps where it is: backward begins with it.
    @Test func offloadCarriesWhatItSays() throws {
        let model = try FamilyTests.families[0].model()
        let offload = try ActivationOffload(device: .cpu)
        (model.checkpointing, model.activationOffload) = (.full, offload)
        let names = model.parameters.map(\.name)
        let first = try run(model, model.parameters)
        let input = FamilyTests.ids.count * model.shape.hidden * 4, carried = 2 * input
        #expect(offload.statistics.sentBytes == carried && offload.statistics.fetchedBytes == carried)
        #expect(offload.statistics.awayBytes == 0 && offload.statistics.pinnedBytes == carried)
        // The second pass writes to the same memory.
        try expectSame(run(model, model.parameters), first, names, "second pass")
        #expect(offload.statistics.sentBytes == 2 * carried && offload.statistics.pinnedBytes == carried)
        // A graph that is dropped gives its buffers back.
        try withGrad {
            _ = try model.hiddenStates(
                ids: Tensor(FamilyTests.ids), positions: Tensor(FamilyTests.positions),
                attention: PackedAttention(segments: FamilyTests.segments))
        }
        #expect(offload.statistics.awayBytes == 0)
        offload.trim()
        #expect(offload.statistics.pinnedBytes == 0)
    }

    // MARK: - What is kept

    /// Bytes that one more layer leaves after a forward pass.
    func bytesPerLayer(_ settings: [String: JSONValue], _ name: String, _ mode: ActivationCheckpointing) throws -> Int {
        func left(_ layers: Int) throws -> Int {
            let family = Family(name: name, settings: settings.merging(["num_hidden_layers": .int(layers)]) { $1 })
            let model = try family.model()
            for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
            model.checkpointing = mode
            let ids = try Tensor(FamilyTests.ids), positions = try Tensor(FamilyTests.positions)
            var kept: Tensor?
            let use = try measuringMemory {
                kept = try withGrad {
                    try model.hiddenStates(
                        ids: ids, positions: positions, attention: PackedAttention(segments: FamilyTests.segments))
                }
            }
            return try withExtendedLifetime(kept) { use.left }
        }
        return try left(4) - left(3)
    }

    static let sizes: [String: JSONValue] = [
        "hidden_size": .int(64), "head_dim": .int(16), "intermediate_size": .int(112),
    ]

    /// What attention keeps beside queries, keys and values is the CPU's own affair: its result in float32 too.
    static func attentionBytes() throws -> Int {
        let generator = try RandomGenerator(seed: 1)
        let all = try [4, 2, 2].map { heads in
            let x = try Tensor.randomNormal([FamilyTests.ids.count, heads, 16], generator: generator)
            try x.setRequiresGrad()
            return x
        }
        var kept: Tensor?
        let use = try measuringMemory {
            kept = try withGrad {
                try Tensor.packedAttention(
                    query: all[0], key: all[1], value: all[2], segments: FamilyTests.segments, scale: 0.25)
            }
        }
        return try withExtendedLifetime(kept) { use.left }
    }

    @Test(arguments: [
        ("Llama", false, false), ("Qwen2", false, false), ("Qwen3", true, false), ("Gemma2", false, true),
    ])
    func aLayerKeepsWhatTheFormulaSays(name: String, hasHeadNorms: Bool, normsDeltas: Bool) throws {
        var layer = ActivationBytes.Layer(hidden: 64, queryHeads: 4, keyValueHeads: 2, headDim: 16, intermediate: 112)
        layer.hasHeadNorms = hasHeadNorms
        layer.normsDeltas = normsDeltas
        let tokens = FamilyTests.ids.count
        var bytes = ActivationBytes(layer, dtype: .float32, mode: .none)
        bytes.attention = 0
        let attention = try Self.attentionBytes()
        let found = try bytesPerLayer(Self.sizes, name, .none), expected = bytes.total * tokens + attention
        #expect(found == expected)
    }

    @Test func checkpointedLayersKeepWhatTheFormulaSays() throws {
        let layer = ActivationBytes.Layer(hidden: 64, queryHeads: 4, keyValueHeads: 2, headDim: 16, intermediate: 112)
        let tokens = FamilyTests.ids.count
        for kept in [[], .queryKeyValue, .gateUp, [.queryKeyValue, .gateUp]] as [KeptActivations] {
            let mode = ActivationCheckpointing.Mode.selective(kept)
            let bytes = ActivationBytes(layer, dtype: .float32, mode: mode)
            #expect(try bytesPerLayer(Self.sizes, "Llama", .init(mode)) == bytes.total * tokens)
        }
        let bytes = ActivationBytes(layer, dtype: .float32, mode: .selective(.attention))
        #expect(bytes.attention == 4 * 16 * 4 + 4 * 4)
        // On the CPU attention's result is float32 in any case, as it is here.
        #expect(try bytesPerLayer(Self.sizes, "Llama", .selective(keeps: .attention)) == bytes.total * tokens)
        #expect(ActivationBytes(layer, dtype: .bfloat16, mode: .full).total == 128)
    }
}
