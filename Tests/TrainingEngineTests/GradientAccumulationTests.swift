import Collectives
import Models
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// One loop for every trainer: a loss that goes backward whole, and one whose head has done so in the forward pass.
@Suite(.serialized) struct GradientAccumulationTests {
    private static let sequences = PolicyTrainerTests.samples.map(\.sequence)
    private static let weight = -1 / Float(sequences.reduce(0) { $0 + $1.response.count })

    private struct Step: Sendable {
        var loss, gradNorm: Double
        var weights: [String: [Float]] = [:]
    }

    /// A step of likelihood on this rank's share of the sequences, each micro-batch `size` of them.
    private static func step(
        _ model: any CausalLanguageModel, _ optimizer: AdamW, size: Int, fused: Bool, over parallel: DataParallel? = nil
    ) throws -> Step {
        let accumulation = GradientAccumulation(
            model: model, optimizer: optimizer, schedule: LearningRateSchedule(peak: 1e-2), gradClip: 1,
            parallel: parallel)
        let forward = PackedForward(model: model, logitsChunk: 4)
        let own = (parallel?.share(of: sequences) ?? Array(sequences.indices)).map { sequences[$0] }
        let micros = stride(from: 0, to: own.count, by: size).map { Array(own[$0..<min($0 + size, own.count)]) }
        let metrics = try accumulation.accumulate(micros) { micro in
            if fused {
                let (outputs, start) = try forward.headBackward(
                    micro, logProbGrads: micro.map { $0.response.map { _ in weight } })
                return LossOutput(loss: outputs.loss, metrics: [LossMetric("loss", outputs.loss)], start: start)
            }
            let loss = try forward(micro).logProbs.sum().multiplied(by: Double(weight))
            return LossOutput(loss: loss, metrics: [LossMetric("loss", loss)])
        }
        let pending = try accumulation.step(learningRate: accumulation.learningRate())
        let sums = try metrics.sums(lossTokens: 1, over: parallel)
        var step = Step(loss: sums.values[0].value, gradNorm: try pending.result().gradNorm)
        func read() throws {
            for parameter in model.parameters { step.weights[parameter.name] = try parameter.tensor.values(Float.self) }
        }
        if let parallel { try parallel.parameters.withWholeWeights(read) } else { try read() }
        return step
    }

    // Adam divides by a gradient's size: one that is nothing but rounding must not become a step.
    private static let settings = AdamW.Settings(epsilon: 1e-2)

    private static func alone(dtype: DType = .float32, size: Int, fused: Bool) throws -> Step {
        let model = try PolicyTrainerTests.model(dtype: dtype)
        let optimizer = try AdamW(parameters: model.trainableParameters, settings: settings)
        return try step(model, optimizer, size: size, fused: fused)
    }

    private func expectSame(_ one: Step, _ other: Step, _ tolerance: Double = 1e-5) {
        #expect(abs(one.loss - other.loss) <= tolerance * abs(other.loss))
        #expect(abs(one.gradNorm - other.gradNorm) <= tolerance * other.gradNorm)
        for (name, values) in other.weights {
            let scale = Double(values.map(abs).max() ?? 0)
            let worst = zip(one.weights[name] ?? [], values).map { Double(abs($0 - $1)) }.max() ?? .infinity
            #expect(worst <= tolerance * scale, "\(name)")
        }
    }

    @Test(arguments: [2, 9]) func aHeadThatWentBackwardLeavesWhatTheLossWould(size: Int) throws {
        expectSame(try Self.alone(size: size, fused: true), try Self.alone(size: 9, fused: false))
    }

    /// The head's gradient, which is the embedding's too, joins the float32 sums of bfloat16 weights.
    @Test func inHalfPrecision() throws {
        expectSame(
            try Self.alone(dtype: .bfloat16, size: 2, fused: true),
            try Self.alone(dtype: .bfloat16, size: 2, fused: false),
            0.02)
    }

    /// Ranks with fewer micro-batches run idle ones.
    @Test(arguments: Layout.all, [1, 9]) func ranksDoTheSame(layout: Layout, size: Int) throws {
        let alone = try Self.alone(size: 9, fused: false)
        let store = try RendezvousStore.local(), steps = Mutex<[Step]>([])
        try onRanks(layout.shape.rankCount) { rank in
            Torch.threadCount = 1
            let model = try PolicyTrainerTests.model()
            let parallel = try DataParallel(
                model, trained: model.parameters, mesh: DeviceMesh(layout.shape, rank: rank, store: store),
                sharding: ShardingOptions(mode: layout.mode))
            let step = try Self.step(
                model, parallel.optimizer(Self.settings), size: size, fused: true, over: parallel)
            steps.withLock { $0.append(step) }
        }
        for step in steps.withLock({ $0 }) { expectSame(step, alone) }
    }
}
