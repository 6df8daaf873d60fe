import Collectives
import Models
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// However ranks share a model and its batches out, they learn what one process learns.
@Suite(.serialized) struct ShardedTrainingTests {
    @Test(arguments: TinyFamily.all) func ranksLearnWhatOneProcessLearns(family: TinyFamily) throws {
        var run = ShardedTraining(family: family)
        let alone = try run.alone()
        for (index, layout) in Layout.all.enumerated() {
            run.checkpointing = index % 2 == 0
            try expectSame(run.on(layout), alone)
        }
        run.checkpointing = false
        try expectSame(run.on(Layout.all[0]), alone)
    }

    @Test(arguments: Layout.all, [false, true]) func withAndWithoutCheckpointing(layout: Layout, checkpointing: Bool)
        throws
    {
        let run = ShardedTraining(checkpointing: checkpointing, steps: 4)
        try expectSame(run.on(layout), run.alone())
    }

    /// Only A and B learn, of which some ranks have no row; what is frozen is shared out all the same.
    @Test(arguments: Layout.all, [1, 4]) func adapters(layout: Layout, rank: Int) throws {
        let targets = LoRASettings.Targets.modules(["q_proj", "v_proj", "down_proj"])
        let run = ShardedTraining(checkpointing: rank == 1, adapter: LoRASettings(rank: rank, targets: targets))
        try expectSame(run.on(layout), run.alone())
    }

    /// A rank whose sequences make fewer micro-batches, or none, takes part in the others'.
    @Test(arguments: Layout.all) func ranksWithLessToDo(layout: Layout) throws {
        var run = ShardedTraining(budget: 30)
        let alone = try run.alone()
        run.share = { rank, _ in rank == 0 ? Array(0..<9) : [] }
        try expectSame(run.on(layout), alone)
        run.share = { rank, ranks in rank == 0 ? Array(0..<(10 - ranks)) : [9 - rank] }
        try expectSame(run.on(layout), alone)
    }

    @Test(arguments: [false, true]) func withoutPrefetching(checkpointing: Bool) throws {
        let run = ShardedTraining(checkpointing: checkpointing, sharding: .init(prefetches: false))
        try expectSame(run.on(Layout(.fullShard, [.shard: 2])), run.alone())
    }

    /// bfloat16 weights, float32 masters and sums: each rank's gradients are rounded, and little else.
    @Test(arguments: Layout.all, [DType.float32, .bfloat16]) func halfPrecision(layout: Layout, reduced: DType) throws {
        let run = ShardedTraining(dtype: .bfloat16, sharding: .init(reduceDType: reduced))
        let alone = try run.alone()
        for result in try run.on(layout) {
            for (own, other) in zip(result.reports, alone.reports) {
                #expect(abs(own.metrics[0].value - other.metrics[0].value) < 0.02 * abs(other.metrics[0].value))
                #expect(abs(own.gradNorm - other.gradNorm) < 0.03 * other.gradNorm)
            }
            for (name, values) in alone.weights {
                let scale = values.map(abs).max() ?? 0
                let worst = zip(try #require(result.weights[name]), values).map { abs($0 - $1) }.max() ?? 0
                #expect(worst < 0.02 * scale, "\(name)")
            }
        }
    }

    @Test func reducingInHalfPrecisionChangesLittle() throws {
        let run = ShardedTraining(steps: 1, sharding: .init(reduceDType: .bfloat16))
        try expectSame(run.on(Layout(.fullShard, [.shard: 2])), run.alone(), 1e-2)
        try expectSame(run.on(Layout(.noShard, [.shard: 2])), run.alone(), 1e-2)
    }

    @Test func nothingToLearnAnywhereIsNoStep() throws {
        let store = try RendezvousStore.local()
        try onRanks(2) { rank in
            let mesh = DeviceMesh(MeshShape([.shard: 2]), rank: rank, store: store)
            let trainer = try PolicyTrainer.sharded(
                TinyFamily.llama.model(), over: mesh, schedule: .init(peak: 1e-3),
                settings: .init(skipsZeroAdvantages: true))
            var sample = PolicyTrainerTests.samples[0]
            sample.advantages = sample.advantages.map { _ in 0 }
            let report = try trainer.update([sample], loss: PolicyTrainerTests.loss)
            #expect(report.microBatches == 0 && !report.stepped && trainer.optimizer.stepCount == 0)
        }
    }

    /// All ranks leave a step out when one rank's gradient is not finite.
    @Test(arguments: [ShardingMode.fullShard, .noShard]) func aGradientThatIsNotFiniteStopsAll(mode: ShardingMode)
        throws
    {
        let store = try RendezvousStore.local()
        try onRanks(2) { rank in
            let mesh = DeviceMesh(MeshShape([.shard: 2]), rank: rank, store: store)
            let trainer = try PolicyTrainer.sharded(
                TinyFamily.llama.model(), over: mesh, sharding: .init(mode: mode), schedule: .init(peak: 1e-3))
            let report = try trainer.update([PolicyTrainerTests.samples[rank]]) { inputs in
                let factor = rank == 1 ? Double.infinity : 1
                return PolicyLossOutput(loss: try inputs.logProbs.sum().multiplied(by: factor), metrics: [])
            }
            #expect(!report.stepped && !report.gradNorm.isFinite && trainer.optimizer.stepCount == 0)
            #expect(try trainer.update([PolicyTrainerTests.samples[rank]], loss: PolicyTrainerTests.loss).stepped)
        }
    }

    /// A rank's metrics are those of all, also where it had nothing to report.
    @Test func metricsAreThoseOfAllRanks() throws {
        let store = try RendezvousStore.local()
        try onRanks(3) { rank in
            let mesh = DeviceMesh(MeshShape([.shard: 3]), rank: rank, store: store)
            let trainer = try PolicyTrainer.sharded(TinyFamily.llama.model(), over: mesh, schedule: .init(peak: 0))
            let samples = rank == 2 ? [] : Array(PolicyTrainerTests.samples[3 * rank..<3 * rank + 3])
            let tokens = PolicyTrainerTests.samples[..<6].reduce(0) { $0 + $1.sequence.response.count }
            let report = try trainer.update(samples) { inputs in
                #expect(inputs.totals.tokens == tokens && inputs.totals.sequences == 6)
                return PolicyLossOutput(
                    loss: try inputs.logProbs.sum(),
                    metrics: [
                        LossMetric("test/rows", try Tensor([Float(inputs.logProbs.size(0))])),
                        LossMetric("test/most", try Tensor([Float(10 * rank)]), .max),
                        LossMetric("test/mean", try inputs.responseMask.sum(), .tokenMean),
                    ])
            }
            #expect(report.metrics.map(\.name) == ["test/rows", "test/most", "test/mean"])
            #expect(report.metrics[0].value == 6 && report.metrics[1].value == 10)
            #expect(abs(report.metrics[2].value - 1) < 1e-12)
            #expect(report.lossTokens == tokens)
        }
    }

    /// A rank's states, put back under the same layout, go on bit for bit.
    @Test(arguments: [Layout(.fullShard, [.shard: 2]), Layout(.noShard, [.shard: 2])])
    func statesComeBackBitForBit(layout: Layout) throws {
        let store = try RendezvousStore.local()
        try onRanks(2) { rank in
            Torch.threadCount = 1
            let mesh = DeviceMesh(layout.shape, rank: rank, store: store)
            func trainer() throws -> PolicyTrainer {
                try PolicyTrainer.sharded(
                    TinyFamily.llama.model(dtype: .bfloat16), over: mesh, sharding: .init(mode: layout.mode),
                    schedule: .init(peak: 1e-2))
            }
            let first = try trainer()
            _ = try first.updateShared(PolicyTrainerTests.samples, loss: PolicyTrainerTests.loss)
            var saved: [String: Tensor] = [:]
            for (name, tensor) in try first.optimizer.state() { saved[name] = try tensor.cloned() }
            let second = try trainer()
            try second.optimizer.restore(stepCount: 1) { try #require(saved[$0]) }
            for trainer in [first, second] {
                _ = try trainer.updateShared(PolicyTrainerTests.samples, loss: PolicyTrainerTests.loss)
            }
            let (one, other) = (try #require(first.parallel).parameters, try #require(second.parallel).parameters)
            for (a, b) in zip(one.all, other.all) { #expect(try a.shard().equals(b.shard())) }
        }
    }
}
