import Collectives
import Models
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// Passes whose backward is part of them (the head's gradient is written before the layers'), with everything that layers may keep,
/// over ranks that share the weights out: the gradients are those of one process.
@Suite(.serialized) struct ShardedLikelihoodTests {
    static let checkpointings: [ActivationCheckpointing] = [
        .none, .selective(), .selective(keeps: [.gateUp]), .full, ActivationCheckpointing(.full, layers: 1),
        ActivationCheckpointing(.selective([.attention]), layers: 2, rest: .full),
    ]

    private typealias Gradients = [String: [Float]]

    private let sequences = PolicyTrainerTests.samples.map(\.sequence)
    /// Three micro-batches: gradients are added to what is there.
    private let micros = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]

    private func pass(_ model: any CausalLanguageModel, _ micro: [Int]) throws -> Double {
        let batch = micro.map { sequences[$0] }
        let grads = batch.map { sequence in sequence.response.indices.map { 0.1 * Float($0 + 1) } }
        return try withGrad {
            try PackedForward(model: model, logitsChunk: 4).backward(
                batch, logProbGrads: grads, entropyGrads: grads.map { $0.map { -0.3 * $0 } }
            ).loss.item()
        }
    }

    private func alone(_ family: TinyFamily) throws -> (gradients: Gradients, loss: Double) {
        let model = try family.model()
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        let loss = try micros.reduce(0) { $0 + (try pass(model, $1)) }
        var gradients: Gradients = [:]
        for parameter in model.parameters {
            gradients[parameter.name] = try #require(try parameter.tensor.grad()).values(Float.self)
        }
        return (gradients, loss)
    }

    /// What each rank has of the gradients, when ranks take the micro-batches in turn; who has none left idles.
    private func check(
        _ family: TinyFamily, _ layout: Layout, _ checkpointing: ActivationCheckpointing,
        _ alone: (gradients: Gradients, loss: Double)
    ) throws {
        let store = try RendezvousStore.local(), losses = Losses()
        try onRanks(layout.shape.rankCount) { rank in
            Torch.threadCount = 1
            let mesh = DeviceMesh(layout.shape, rank: rank, store: store)
            let model = try family.model()
            model.checkpointing = checkpointing
            let parallel = try DataParallel(
                model, trained: model.parameters, mesh: mesh, sharding: .init(mode: layout.mode),
                axes: GradientAxes.init)
            let own = micros.indices.filter { $0 % parallel.count == parallel.rank }.map { micros[$0] }
            try parallel.forEach(own) { micro, isLast in
                try parallel.parameters.backward(isLast: isLast) {
                    guard let micro else { return try withGrad { try parallel.idle() }.backward() }
                    let loss = try pass(model, micro)
                    losses.all.withLock { $0 += loss }
                }
            }
            for member in parallel.parameters.all where !member.rows.isEmpty {
                let whole = try #require(alone.gradients[member.parameter.name])
                let found = try #require(try member.gradient()).values(Float.self)
                let start = member.rows.lowerBound * found.count / member.rows.count
                let scale = whole.reduce(0) { $0 + $1 * $1 }.squareRoot()
                let error = zip(found, whole[start...]).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
                #expect(
                    error <= 1e-5 * scale,
                    "\(member.parameter.name) of \(family) \(layout) \(checkpointing): \(error) of \(scale)")
            }
        }
        let loss = losses.all.withLock { $0 }
        #expect(abs(loss - alone.loss) <= 1e-5 * abs(alone.loss))
    }

    private final class Losses: Sendable {
        let all = Mutex(0.0)
    }

    /// Every family with every mode of sharding and of checkpointing.
    @Test(arguments: TinyFamily.all) func gradientsAreThoseOfOneProcess(family: TinyFamily) throws {
        let expected = try alone(family)
        for mode in ShardingMode.allCases {
            for checkpointing in Self.checkpointings {
                try check(family, Layout(mode, [.shard: 2]), checkpointing, expected)
            }
        }
    }

    /// More ranks than micro-batches, and sets side by side.
    @Test(arguments: Layout.all, checkpointings)
    func onOtherLayouts(layout: Layout, checkpointing: ActivationCheckpointing) throws {
        let family = TinyFamily(name: "Qwen2")
        try check(family, layout, checkpointing, alone(family))
    }
}
