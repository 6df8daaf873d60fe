import Checkpoints
import Collectives
import Models
import PolicyAlgorithms
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// A critic: values where they belong, and learned the same however the batch is cut and shared out.
@Suite(.serialized) struct ValueTrainerTests {
    static func model(_ folder: RewardTrainingTests.Folder) throws -> ScoringModel {
        try ModelRegistry.loadScoring(
            ModelSource.open(folder.path), newHead: .init(standardDeviation: 0.3, seed: 4, reading: .everyToken))
    }

    static let samples: [ValueSample] = ObjectiveTests.samples.enumerated().map { row, sample in
        let count = sample.sequence.response.count
        return ValueSample(
            sequence: sample.sequence, values: (0..<count).map { Float($0 + row) / 9 - 0.4 },
            returns: (0..<count).map { Float(($0 * 3 + row) % 5) / 2 - 1 }, responseMask: sample.responseMask)
    }

    static let settings = AdamW.Settings(epsilon: 1e-2)
    static func objective(_ mode: LossAggregation.Mode) -> ValueObjective {
        ValueObjective(loss: ValueLoss(clipRange: 0.2), aggregation: LossAggregation(mode))
    }

    private func trainer(_ folder: RewardTrainingTests.Folder, budget: Int, shares: Bool = true) throws -> ValueTrainer
    {
        let model = try Self.model(folder)
        return try ValueTrainer(
            model: model, optimizer: try AdamW(parameters: model.trainableParameters, settings: Self.settings),
            schedule: LearningRateSchedule(peak: 1e-2),
            settings: .init(microBatchTokens: budget, sharesPrefixes: shares))
    }

    @Test func valuesAreThoseOfThePredictorsOfSequencesAlone() throws {
        let folder = try RewardTrainingTests.Folder(), trainer = try trainer(folder, budget: 40)
        let sequences = Self.samples.map(\.sequence), found = try trainer.values(sequences)
        for (sequence, values) in zip(sequences, found) {
            let ids = (sequence.prompt + sequence.response).map(Int64.init)
            let alone = try withNoGrad {
                try trainer.model.tokenValues(
                    ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)])
                ).values(Float.self)
            }
            let first = sequence.prompt.count - 1
            #expect(values.count == sequence.response.count && values.contains { abs($0) > 1e-3 })
            for (place, value) in values.enumerated() { #expect(abs(value - alone[first + place]) < 2e-5) }
        }
    }

    @Test(arguments: LossAggregation.Mode.allCases)
    func lossAndGradientDoNotDependOnTheSplit(mode: LossAggregation.Mode) throws {
        let folder = try RewardTrainingTests.Folder(), objective = Self.objective(mode)
        func run(_ budget: Int, _ shares: Bool) throws -> (Double, [[Float]]) {
            let trainer = try trainer(folder, budget: budget, shares: shares)
            let report = try trainer.accumulate(Self.samples) { try objective($0) }
            return (
                try #require(report.metrics.first { $0.name == "critic/vf_loss" }).value,
                try trainer.model.parameters.map { try #require(try $0.tensor.grad()).values(Float.self) }
            )
        }
        let (loss, expected) = try run(100_000, true)
        for (budget, shares) in [(1, true), (30, false), (45, true)] {
            let (share, grads) = try run(budget, shares)
            #expect(abs(share - loss) <= 1e-5 * abs(loss))
            for (a, b) in zip(grads, expected) {
                let scale = b.map(abs).max() ?? 0
                for (x, y) in zip(a, b) { #expect(abs(x - y) <= 2e-5 * scale + 1e-7) }
            }
        }
    }

    @Test(arguments: [
        Layout(.noShard, [.replicate: 2]), Layout(.fullShard, [.shard: 2]), Layout(.shardGradOp, [.shard: 2]),
        Layout(.fullShard, [.replicate: 2, .shard: 2]),
    ])
    func ranksLearnWhatOneProcessLearns(layout: Layout) throws {
        let folder = try RewardTrainingTests.Folder(), objective = Self.objective(.tokenMean)
        @Sendable func run(_ trainer: ValueTrainer) throws -> [Double] {
            var all: [Double] = []
            for _ in 0..<2 {
                let report = try trainer.enqueueShared(Self.samples) { try objective($0) }.report()
                all += [try #require(report.metrics.first { $0.name == "critic/vf_loss" }).value, report.gradNorm]
            }
            return try all + trainer.valuesShared(Self.samples.map(\.sequence)).flatMap { $0.map(Double.init) }
        }
        let alone = try run(trainer(folder, budget: 45))
        #expect(alone[2] < alone[0])
        let store = try RendezvousStore.local(), results = Mutex<[[Double]]>([])
        try onRanks(layout.shape.rankCount) { rank in
            Torch.threadCount = 1
            let mesh = DeviceMesh(layout.shape, rank: rank, store: store), model = try Self.model(folder)
            var sharding = ShardingOptions()
            sharding.mode = layout.mode
            let parallel = try DataParallel(
                model, trained: model.trainableParameters, mesh: mesh, sharding: sharding, axes: { GradientAxes($0) })
            let own = try run(
                ValueTrainer(
                    model: model, optimizer: parallel.optimizer(Self.settings),
                    schedule: LearningRateSchedule(peak: 1e-2), settings: .init(microBatchTokens: 45),
                    parallel: parallel))
            results.withLock { $0.append(own) }
        }
        for found in results.withLock({ $0 }) {
            #expect(found.count == alone.count)
            for (a, b) in zip(found, alone) { #expect(abs(a - b) < 2e-5 * max(1, abs(b))) }
        }
    }
}
