import Collectives
import Models
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// What a rank has in memory, and when.
@Suite struct ShardedParametersTests {
    static let shape = MeshShape([.shard: 2])

    /// Passes hooks on, and notes how many bytes of whole weights there are at each.
    private final class Watch: LayerHooks {
        let parameters: ShardedParameters
        var forward: [Int] = [], backward: [Int] = []
        init(_ parameters: ShardedParameters) { self.parameters = parameters }

        func willBegin() throws { try parameters.willBegin() }
        func willRun(layer: Int, _ x: Tensor) throws -> Tensor {
            let y = try parameters.willRun(layer: layer, x)
            forward.append(parameters.wholeBytes)
            return try y.onBackward { self.backward.append(self.parameters.wholeBytes) }
        }
        func didRun(layer: Int, _ x: Tensor) throws -> Tensor { try parameters.didRun(layer: layer, x) }
    }

    private func pass(_ model: any CausalLanguageModel) throws -> Tensor {
        let ids = (0..<12).map { Int64($0 * 5 % 61) }
        return try model.hiddenStates(
            ids: Tensor(ids), positions: Tensor.arange(0..<12),
            attention: PackedAttention(segments: [PackedSegment(start: 0, length: 12)])
        ).squared().sum()
    }

    private func bytes(_ unit: [Parameter], ranks: Int) -> Int {
        unit.reduce(0) { sum, parameter in
            let rows = parameter.tensor.size(0), padded = (rows + ranks - 1) / ranks * ranks
            return sum + parameter.tensor.byteCount / rows * padded
        }
    }

    @Test(arguments: ShardingMode.allCases, [false, true])
    func weightsAreWholeOnlyWhileTheyAreNeeded(mode: ShardingMode, checkpointing: Bool) throws {
        let store = try RendezvousStore.local()
        try onRanks(2) { rank in
            let mesh = DeviceMesh(Self.shape, rank: rank, store: store)
            let model = try TinyFamily(name: "Qwen2").model()
            model.checkpointing = checkpointing ? .full : .none
            let units = ParameterUnits(model.parameters), ranks = mode == .noShard ? 1 : 2
            let root = bytes(units.root, ranks: ranks), layer = bytes(units.layers[0], ranks: ranks)
            let parameters = try ShardedParameters(
                model, trained: model.parameters, mesh: mesh, settings: .init(mode: mode))
            let watch = Watch(parameters)
            model.layerHooks = watch
            let all = root + 3 * layer
            #expect(parameters.wholeBytes == (mode == .noShard ? all : 0))
            for isLast in [false, true] {
                try parameters.begin()
                let loss = try withGrad { try pass(model) }
                switch mode {
                // The last layer stays for backward, and so does the root.
                case .fullShard: #expect(parameters.wholeBytes == root + layer)
                case .shardGradOp, .noShard: #expect(parameters.wholeBytes == all)
                }
                try parameters.backward(loss, isLast: isLast)
                #expect(parameters.wholeBytes == (mode == .fullShard ? root : all))
                for parameter in model.parameters { #expect(try parameter.tensor.grad() == nil) }
            }
            try parameters.end()
            #expect(parameters.wholeBytes == (mode == .noShard ? all : 0))
            if mode == .fullShard {
                // A layer and the one that is on its way.
                #expect(watch.forward.max() == root + 2 * layer && watch.backward.max() == root + 2 * layer)
                #expect(watch.backward.count == 6)
            }
            let kept = parameters.all.reduce(0) { $0 + $1.chunk.byteCount }
            #expect(kept == (mode == .noShard ? all : all / 2))
            // Without gradients nothing stays but the root, until the end.
            try parameters.begin()
            _ = try withNoGrad { try pass(model) }
            if mode == .fullShard { #expect(parameters.wholeBytes == root) }
            try parameters.end()
            #expect(parameters.wholeBytes == (mode == .noShard ? all : 0))
        }
    }

    @Test(arguments: [2, 3, 4]) func wholeWeightsAreTheModelsOwn(ranks: Int) throws {
        let store = try RendezvousStore.local(),
            family = TinyFamily(name: "Qwen3Moe", settings: TinyFamily.all[11].settings)
        try onRanks(ranks) { rank in
            let mesh = DeviceMesh(MeshShape([.shard: ranks]), rank: rank, store: store)
            let model = try family.model(), expected = try family.model()
            let parameters = try ShardedParameters(model, trained: model.parameters, mesh: mesh)
            #expect(parameters.wholeBytes == 0)
            try parameters.withWholeWeights { () throws in
                for (own, other) in zip(model.parameters, expected.parameters) {
                    #expect(try own.tensor.equals(other.tensor), "\(own.name)")
                }
                // A pass in between frees nothing.
                #expect(try withNoGrad { try pass(model).item() } == withNoGrad { try pass(expected).item() })
                #expect(parameters.wholeBytes >= expected.parameters.reduce(0) { $0 + $1.tensor.byteCount })
            }
            #expect(parameters.wholeBytes == 0)
        }
    }

    /// Weights that are read one parameter at a time, when it is shared out, are those of a model that reads all at once.
    @Test(arguments: [ShardingMode.fullShard, .noShard]) func weightsAreReadWhenTheyAreSharedOut(mode: ShardingMode)
        throws
    {
        let store = try RendezvousStore.local()
        try onRanks(2) { rank in
            let mesh = DeviceMesh(Self.shape, rank: rank, store: store)
            for family in TinyFamily.all {
                let expected = try family.model(byName: true),
                    model = try family.model(byName: true, defersLoading: true)
                #expect(model.parameters.allSatisfy { $0.tensor.storageByteCount == 0 }, "\(family)")
                let parameters = try ShardedParameters(
                    model, trained: model.parameters, mesh: mesh, settings: .init(mode: mode))
                try parameters.withWholeWeights { () throws in
                    for (own, other) in zip(model.parameters, expected.parameters) {
                        #expect(try own.tensor.equals(other.tensor), "\(own.name) of \(family)")
                    }
                    #expect(try withNoGrad { try pass(model).item() } == withNoGrad { try pass(expected).item() })
                }
                let whole = expected.parameters.reduce(0) { $0 + $1.tensor.byteCount }
                #expect(parameters.wholeBytes == (mode == .noShard ? whole : 0))
            }
        }
    }

    /// Every element of every tensor of the checkpoint lies on one rank.
    @Test(arguments: [2, 4]) func shardsCoverTheCheckpoint(ranks: Int) throws {
        let store = try RendezvousStore.local(), boxes = Boxes()
        try onRanks(ranks) { rank in
            let mesh = DeviceMesh(MeshShape([.shard: ranks]), rank: rank, store: store)
            let model = try TinyFamily(name: "Qwen2").model(), expected = try TinyFamily(name: "Qwen2").model()
            let parameters = try ShardedParameters(model, trained: model.parameters, mesh: mesh)
            var whole: [String: Tensor] = [:]
            for (name, tensor) in try expected.namedTensors() { whole[name] = tensor }
            for shard in try parameters.localShards() {
                let tensor = try #require(whole[shard.box.name])
                #expect(tensor.shape == shard.box.shape)
                #expect(try tensor.narrowed(0, shard.box.ranges[0]).equals(shard.tensor))
                boxes.all.withLock { $0.append(shard.box) }
            }
        }
        let model = try TinyFamily(name: "Qwen2").model()
        for (name, tensor) in try model.namedTensors() {
            let own = boxes.all.withLock { $0 }.filter { $0.name == name }
            #expect(own.reduce(0) { $0 + $1.count } == tensor.count, "\(name)")
            for (index, box) in own.enumerated() {
                for other in own[..<index] { #expect(box.intersection(other) == nil) }
            }
        }
    }

    private final class Boxes: Sendable {
        let all = Mutex<[ShardBox]>([])
    }

    /// Two passes before one backward: the sums are those of both.
    @Test(arguments: [ShardingMode.fullShard, .noShard]) func severalPassesBeforeOneBackward(mode: ShardingMode) throws
    {
        let store = try RendezvousStore.local()
        let alone = try TinyFamily.llama.model()
        for parameter in alone.parameters { try parameter.tensor.setRequiresGrad() }
        try withGrad { try pass(alone).adding(pass(alone).multiplied(by: 3)) }.backward()
        let expected = try alone.parameters.map { try #require(try $0.tensor.grad()).values(Float.self) }
        try onRanks(2) { rank in
            let mesh = DeviceMesh(Self.shape, rank: rank, store: store)
            let model = try TinyFamily.llama.model()
            let parameters = try ShardedParameters(
                model, trained: model.parameters, mesh: mesh, settings: .init(mode: mode))
            try parameters.begin()
            let loss = try withGrad { try pass(model).adding(pass(model).multiplied(by: 3)) }
            try parameters.backward(loss, isLast: true)
            try parameters.end()
            for (member, whole) in zip(parameters.all, expected) {
                guard let grad = try member.gradient() else { continue }
                let start = member.rows.lowerBound * grad.count / max(1, member.rows.count)
                let scale = whole.map(abs).max() ?? 0
                // Both ranks had the same sequences.
                let worst = zip(try grad.values(Float.self), whole[start...]).map { abs($0 - 2 * $1) }.max() ?? 0
                #expect(worst <= 4e-5 * scale)
            }
        }
    }

    @Test func whatAHookThrowsEndsBackward() throws {
        let x = try Tensor([Float(1), 2])
        try x.setRequiresGrad()
        let y = try withGrad {
            try x.multiplied(by: 2).onBackward { throw TorchError(code: .device, operation: "late", message: "rank 3") }
        }
        let error = #expect(throws: TorchError.self) { try y.sum().backward() }
        #expect(error?.description.contains("rank 3") == true)
    }

    @Test func hooksRunWhereGradientsGo() throws {
        let x = try Tensor([Float(1), 2])
        var calls = 0
        // No gradient, no call.
        _ = try x.onBackward { calls += 1 }
        try x.setRequiresGrad()
        _ = try withNoGrad { try x.onBackward { calls += 1 } }
        let y = try withGrad { try x.multiplied(by: 3).onBackward { calls += 1 }.squared().sum() }
        #expect(calls == 0)
        try y.backward()
        #expect(calls == 1)
        #expect(try #require(try x.grad()).values(Float.self) == [18, 36])
    }

    @Test func memoryComesBackUnderTensorsThatStay() throws {
        let weight = try Tensor([Float](repeating: 2, count: 6), shape: [3, 2]), view = try weight.narrowed(0, 1..<2)
        let x = try Tensor([Float(1), 1], shape: [1, 2])
        try weight.setRequiresGrad()
        try x.setRequiresGrad()
        let y = try withGrad { try x.linear(weight).sum() }
        try weight.releaseStorage()
        #expect(weight.storageByteCount == 0)
        let whole = try weight.allocateStorage([4, 2])
        #expect(weight.storageByteCount == 32)
        try whole.copy(from: Tensor((0..<8).map(Float.init), shape: [4, 2]))
        #expect(try weight.values(Float.self) == [0, 1, 2, 3, 4, 5] && view.values(Float.self) == [2, 3])
        // What autograd saved reads what is there now, and takes it for what was.
        try y.backward()
        #expect(try #require(try x.grad()).values(Float.self) == [6, 9])
        #expect(throws: TorchError.self) { try weight.allocateStorage([2, 2]) }
        #expect(throws: TorchError.self) { try view.allocateStorage([4, 2]) }
    }

    @Test func unitsAreTheLayersAndTheRest() throws {
        let model = try TinyFamily(name: "Qwen2").model()
        try model.addAdapter(LoRASettings(rank: 2))
        let units = ParameterUnits(model.parameters + model.trainableParameters)
        #expect(units.root.map(\.name) == ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
        #expect(units.layers.count == 3)
        #expect(units.layers[1].allSatisfy { $0.name.hasPrefix("model.layers.1.") })
        #expect(units.layers[1].contains { $0.name.hasSuffix(".lora_A") })
    }
}
