import Collectives
import Models
import PolicyAlgorithms
import Synchronization
import TensorCore
import TestSupport
import Testing

@testable import TrainingEngine

/// Every policy loss of the registry in a trainer: how a mini-batch is cut, and by how many ranks it is shared, changes neither loss
/// nor gradient.
@Suite(.serialized) struct ObjectiveTests {
    static let names = PolicyLosses.all.keys.sorted()

    /// Answers with gaps, one with nothing left to learn, off policy, weighted, with a reference.
    static let samples: [PolicySample] = PolicyTrainerTests.samples.enumerated().map { row, sample in
        var sample = sample
        let count = sample.sequence.response.count
        func values(_ base: Float, _ spread: Float) -> [Float] {
            (0..<count).map { base + spread * Float(($0 * 5 + row * 3) % 7 - 3) / 3 }
        }
        sample.oldLogProbs = values(-4, 0.6)
        sample.rolloutLogProbs = values(-4.1, 0.4)
        sample.refLogProbs = values(-3.9, 0.5)
        sample.importanceWeights = values(1, 0.2)
        sample.advantages = values(0.3, 1)
        if row % 3 == 1 { sample.responseMask = (0..<count).map { $0 % 2 == 0 } }
        if row == 4 { sample.responseMask = [Bool](repeating: false, count: count) }
        return sample
    }

    static func objective(_ name: String, _ mode: LossAggregation.Mode) throws -> PolicyObjective {
        let make = try #require(PolicyLosses.all[name])
        let settings = PolicyLossSettings(
            clipLow: 0.1, clipHigh: 0.2, clipCovRatio: 0.2, clipCovLower: -2, clipCovUpper: 2, klCovRatio: 0.3,
            rolloutCorrection: try RolloutCorrection(
                weights: "token", threshold: "0.3_3.0", rejection: "token_k1", rejectionThreshold: "0.2_5.0"),
            bypassLoss: .reinforce)
        return PolicyObjective(
            policyLoss: make(settings), aggregation: LossAggregation(mode), entropyCoefficient: 0.01,
            kl: (KLEstimator(.k3), 0.1), bypassesOldLogProbs: name == "bypass_mode")
    }

    private func gradients(_ objective: PolicyObjective, budget: Int, shares: Bool) throws -> (Double, [[Float]]) {
        let model = try PolicyTrainerTests.model()
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-3),
            settings: .init(microBatchTokens: budget, sharesPrefixes: shares, logitsChunk: 4))
        let fitted = try objective.fitted(to: Self.samples)
        let result = try trainer.accumulate(Self.samples) { try fitted($0) }
        let grads = try model.parameters.map { try #require(try $0.tensor.grad()).values(Float.self) }
        return (try #require(result.metrics.first { $0.name == "actor/pg_loss" }).value, grads)
    }

    @Test(arguments: names, LossAggregation.Mode.allCases)
    func doesNotDependOnTheMicroBatches(name: String, mode: LossAggregation.Mode) throws {
        let objective = try Self.objective(name, mode)
        let (loss, expected) = try gradients(objective, budget: 100_000, shares: true)
        #expect(expected.contains { $0.contains { $0 != 0 } })
        for (budget, shares) in [(1, true), (30, false), (45, true)] {
            let (share, grads) = try gradients(objective, budget: budget, shares: shares)
            #expect(abs(share - loss) <= 2e-5 * max(1, abs(loss)), "\(budget)")
            for (a, b) in zip(grads, expected) {
                let scale = b.map(abs).max() ?? 0
                for (x, y) in zip(a, b) { #expect(abs(x - y) <= 5e-5 * scale + 1e-6, "\(budget)") }
            }
        }
    }

    @Test(arguments: names) func doesNotDependOnTheRanks(name: String) throws {
        @Sendable func run(_ trainer: PolicyTrainer) throws -> [Double] {
            let objective = try Self.objective(name, .seqMeanTokenMean).fitted(to: Self.samples)
            let report = try trainer.updateShared(Self.samples) { try objective($0) }
            let loss = try #require(report.metrics.first { $0.name == "actor/pg_loss" }).value
            let entropy = try #require(report.metrics.first { $0.name == "actor/entropy" }).value
            return [loss, entropy, report.gradNorm]
        }
        let settings = PolicyTrainer.Settings(microBatchTokens: 40, logitsChunk: 4)
        let schedule = LearningRateSchedule(peak: 1e-3), model = try PolicyTrainerTests.model()
        let alone = try run(
            PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
                schedule: schedule, settings: settings))
        let store = try RendezvousStore.local(), results = Mutex<[[Double]]>([])
        try onRanks(2) { rank in
            Torch.threadCount = 1
            let mesh = DeviceMesh(MeshShape([.replicate: 2]), rank: rank, store: store)
            let own = try run(
                PolicyTrainer.sharded(
                    PolicyTrainerTests.model(), over: mesh, sharding: .init(mode: .noShard), schedule: schedule,
                    settings: settings))
            results.withLock { $0.append(own) }
        }
        for found in results.withLock({ $0 }) {
            for (a, b) in zip(found, alone) { #expect(abs(a - b) <= 2e-5 * max(1, abs(b)), "\(found) and \(alone)") }
        }
    }

    /// A sequence of which nothing is left counts nowhere.
    @Test func whatIsRejectedWholeIsNoSequence() throws {
        let objective = try Self.objective("vanilla", .seqMeanTokenMean)
        func loss(_ samples: [PolicySample]) throws -> Double {
            let model = try PolicyTrainerTests.model()
            let trainer = PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
                schedule: LearningRateSchedule(peak: 1e-3))
            let metrics = try trainer.accumulate(samples) { try objective($0) }.metrics
            return try #require(metrics.first { $0.name == "actor/pg_loss" }).value
        }
        var fewer = Self.samples
        fewer.remove(at: 4)
        #expect(abs(try loss(Self.samples) - loss(fewer)) < 1e-6)
    }

    /// Σπ² of each token's distribution is that of its whole logits.
    @Test func sumsOfSquaredProbabilities() throws {
        let model = try PolicyTrainerTests.model()
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-3),
            settings: .init(microBatchTokens: 30, temperature: 0.7, logitsChunk: 3))
        let sequences = Self.samples.map(\.sequence)
        let found = try trainer.sumsPiSquared(sequences)
        for (sequence, sums) in zip(sequences, found) {
            let ids = (sequence.prompt + sequence.response).map(Int64.init)
            let expected = try withNoGrad {
                let hidden = try model.hiddenStates(
                    ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                let logits = try model.logits(hidden).divided(by: 0.7)
                return try TokenDistribution.sumPiSquared(logits).values(Float.self)
            }
            let first = sequence.prompt.count - 1
            #expect(sums.count == sequence.response.count)
            for (place, sum) in sums.enumerated() { #expect(abs(sum - expected[first + place]) < 1e-5) }
        }
    }

    /// A value head on the trunk learns its own loss in the policy's passes, however they are cut.
    @Test func sharedTrunkDoesNotDependOnTheMicroBatches() throws {
        func run(_ budget: Int) throws -> [Float] {
            let model = try PolicyTrainerTests.model()
            let head = try ValueHead(hidden: model.shape.hidden, device: .cpu)
            let trained = TrainedValueHead(
                head, optimizer: try AdamW(parameters: head.parameters, settings: .init(epsilon: 1e-2)),
                schedule: LearningRateSchedule(peak: 1e-2))
            let trainer = PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init(epsilon: 1e-2)),
                schedule: LearningRateSchedule(peak: 1e-2), settings: .init(microBatchTokens: budget, logitsChunk: 4),
                valueHead: trained)
            var objective = try Self.objective("vanilla", .tokenMean)
            objective.value = (ValueObjective(), 0.5)
            var losses: [Float] = []
            for _ in 0..<3 {
                let values = try trainer.headValues(Self.samples.map(\.sequence))
                let samples = zip(Self.samples, values).map { sample, values in
                    var sample = sample
                    sample.values = values
                    sample.returns = values.indices.map { Float($0) / 4 - 0.5 }
                    return sample
                }
                let report = try trainer.update(samples) { try objective($0) }
                losses.append(Float(try #require(report.metrics.first { $0.name == "critic/vf_loss" }).value))
            }
            return losses + (try head.weight.tensor.values(Float.self))
        }
        let whole = try run(100_000)
        #expect(whole[2] < whole[0] && whole[3...].contains { $0 != 0 })
        for (a, b) in zip(try run(25), whole) { #expect(abs(a - b) < 1e-4 * max(0.1, abs(b))) }
    }
}
