import Collectives
import Models
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// How ranks share the work out.
struct Layout: Sendable, CustomTestStringConvertible {
    let mode: ShardingMode
    let shape: MeshShape
    var testDescription: String { "\(mode.rawValue) \(shape)" }

    init(_ mode: ShardingMode, _ sizes: [MeshAxis: Int]) {
        self.mode = mode
        shape = MeshShape(sizes)
    }

    static let all: [Layout] = [
        Layout(.fullShard, [.shard: 2]), Layout(.fullShard, [.shard: 4]),
        Layout(.shardGradOp, [.shard: 2]), Layout(.shardGradOp, [.shard: 4]),
        Layout(.noShard, [.shard: 2]), Layout(.noShard, [.replicate: 4]),
        Layout(.fullShard, [.replicate: 2, .shard: 2]), Layout(.shardGradOp, [.replicate: 2, .shard: 2]),
    ]
}

/// What a few steps of training come to.
struct Trained: Sendable {
    var reports: [PolicyStepReport] = []
    /// After the last step, by name.
    var weights: [String: [Float]] = [:]
    /// Of the first mini-batch; of a rank its rows, and the place of their first element in the whole.
    var gradients: [String: (start: Int, values: [Float])] = [:]
    var logProbs: [[Float]] = []
}

/// One run, alone or on the ranks of a layout, that learns the samples of ``PolicyTrainerTests``.
struct ShardedTraining: Sendable {
    var family = TinyFamily.llama
    var dtype = DType.float32
    var checkpointing = false
    /// nil: all parameters learn.
    var adapter: LoRASettings?
    var budget = 45
    var steps = 2
    var sharding = ShardingOptions()
    /// Which of the samples a rank of so many takes; nil: by work.
    var share: (@Sendable (_ rank: Int, _ ranks: Int) -> [Int])?
    var samples = PolicyTrainerTests.samples
    /// Adam divides by a gradient's size: one that is nothing but rounding must not become a step.
    var optimizer = AdamW.Settings(epsilon: 1e-2)
    var scores = true

    private func model() throws -> any CausalLanguageModel {
        let model = try family.model(dtype: dtype)
        model.checkpointing = checkpointing ? .full : .none
        if let adapter {
            let generator = try RandomGenerator(seed: 4)
            try model.addAdapter(adapter) { _, shape in
                try Tensor.randomNormal(shape, generator: generator).multiplied(by: 0.1)
            }
        }
        return model
    }

    private var schedule: LearningRateSchedule { LearningRateSchedule(peak: 2e-2, warmupSteps: 2) }
    private var settings: PolicyTrainer.Settings {
        PolicyTrainer.Settings(microBatchTokens: budget, gradClip: 0.5, logitsChunk: 4)
    }

    func alone() throws -> Trained {
        let model = try model()
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.trainableParameters, settings: optimizer),
            schedule: schedule, settings: settings)
        var result = Trained()
        if dtype == .float32 {
            _ = try trainer.accumulate(samples, loss: PolicyTrainerTests.loss)
            for parameter in model.trainableParameters {
                result.gradients[parameter.name] = (0, try #require(try parameter.tensor.grad()).values(Float.self))
                try parameter.tensor.setGrad(nil)
            }
        }
        for _ in 0..<steps { result.reports.append(try trainer.update(samples, loss: PolicyTrainerTests.loss)) }
        if scores { result.logProbs = try trainer.score(samples.map(\.sequence)).logProbs }
        for parameter in model.trainableParameters {
            result.weights[parameter.name] = try parameter.tensor.values(Float.self)
        }
        return result
    }

    /// What each rank gets, its gradients being its rows'.
    func on(_ layout: Layout, _ check: @escaping @Sendable (PolicyTrainer, DataParallel) throws -> Void = { _, _ in })
        throws -> [Trained]
    {
        let store = try RendezvousStore.local(), count = layout.shape.rankCount, results = Results()
        try onRanks(count) { rank in
            // Ranks are threads here, and share the processor.
            Torch.threadCount = 1
            let mesh = DeviceMesh(layout.shape, rank: rank, store: store)
            let result = try run(layout, mesh, check)
            results.all.withLock { $0[rank] = result }
        }
        return results.all.withLock { all in (0..<count).compactMap { all[$0] } }
    }

    private func run(
        _ layout: Layout, _ mesh: DeviceMesh, _ check: (PolicyTrainer, DataParallel) throws -> Void
    ) throws -> Trained {
        let model = try model()
        var sharding = sharding
        sharding.mode = layout.mode
        let trainer = try PolicyTrainer.sharded(
            model, over: mesh, sharding: sharding, optimizer: optimizer, schedule: schedule, settings: settings)
        let parallel = try #require(trainer.parallel)
        let indices =
            share?(parallel.rank, parallel.count) ?? parallel.share(of: samples.map(\.sequence))
        let own = indices.map { samples[$0] }
        var result = Trained()
        if dtype == .float32 { _ = try trainer.accumulate(own, loss: PolicyTrainerTests.loss) }
        for member in parallel.parameters.all where dtype == .float32 && member.trains && !member.rows.isEmpty {
            let gradient = try #require(try member.gradient())
            let start = member.rows.lowerBound * gradient.count / member.rows.count
            result.gradients[member.parameter.name] = (start, try gradient.values(Float.self))
        }
        parallel.parameters.clearGradients()
        for _ in 0..<steps { result.reports.append(try trainer.update(own, loss: PolicyTrainerTests.loss)) }
        if scores { result.logProbs = try trainer.scoreShared(samples.map(\.sequence)).logProbs }
        try parallel.parameters.withWholeWeights {
            for parameter in model.trainableParameters {
                result.weights[parameter.name] = try parameter.tensor.values(Float.self)
            }
        }
        try check(trainer, parallel)
        return result
    }
}

private final class Results: Sendable {
    let all = Mutex<[Int: Trained]>([:])
}

/// Expects every rank to have come to what one process comes to: errors relative to each tensor, by their l2 norms.
func expectSame(
    _ ranks: [Trained], _ alone: Trained, _ tolerance: Double = 1e-5,
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    func norm(_ values: some Sequence<Float>) -> Double {
        values.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
    }
    func close(_ a: [Float], _ b: some Collection<Float>, of scale: Double? = nil, _ what: String) {
        let error = norm(zip(a, b).map { $0 - $1 }), scale = scale ?? norm(b)
        #expect(
            a.count <= b.count && error <= tolerance * scale, "\(what): \(error) of \(scale)",
            sourceLocation: sourceLocation)
    }
    for result in ranks {
        for (step, (own, other)) in zip(result.reports, alone.reports).enumerated() {
            #expect(own.stepped && own.lossTokens == other.lossTokens, sourceLocation: sourceLocation)
            close(own.metrics.map { Float($0.value) }, other.metrics.map { Float($0.value) }, "loss of step \(step)")
            close([Float(own.gradNorm)], [Float(other.gradNorm)], "norm of step \(step)")
        }
        for (name, values) in alone.weights { close(result.weights[name] ?? [], values, "weights of \(name)") }
        for (own, other) in zip(result.logProbs, alone.logProbs) { close(own, other, "log-probabilities") }
        #expect(result.logProbs.count == alone.logProbs.count, sourceLocation: sourceLocation)
        for (name, own) in result.gradients {
            let whole = try #require(alone.gradients[name]).values
            close(own.values, whole[own.start...], of: norm(whole), "gradient of \(name)")
        }
    }
}
