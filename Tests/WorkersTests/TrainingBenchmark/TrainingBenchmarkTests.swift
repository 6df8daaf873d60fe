import TensorCore
import Testing

@testable import Workers

@Suite struct TrainingBenchmarkTests {
    /// 6 N + 6 L S H D a token, by hand for Qwen2-7B: N = 28 (3584 · (2 · 3584 + 2 · 512) + 3 · 3584 · 18944) + 3584 · 152064.
    @Test func countsUsefulOperations() throws {
        let shape = try #require(BenchmarkShape.known["qwen2-7b"])
        var settings = TrainingBenchmark.Settings()
        let weights = 28.0 * (3584 * (2 * 3584 + 2 * 512) + 3 * 3584 * 18944) + 3584 * 152_064
        let attention = 2.0 * 28 * 4096 * 3584, head = 2.0 * 3584 * 152_064
        let cost = TrainingCost(shape.decoder, settings)
        #expect(cost.tokens == 32768)
        #expect(cost.useful == 32768 * (6 * weights + 3 * attention))
        #expect(cost.computed == 32768 * (8 * weights - head + 4 * attention))
        settings.checkpointing = .none
        #expect(TrainingCost(shape.decoder, settings).computed == cost.useful)
        settings.objective = .policy
        #expect(TrainingCost(shape.decoder, settings).computed == cost.useful + 32768 * head)
        settings.objective = .score
        #expect(TrainingCost(shape.decoder, settings).useful == 32768 * (2 * weights + attention))
    }

    static let cases: [TrainingBenchmark.Settings] = TrainingBenchmark.Objective.allCases.flatMap { objective in
        [false, true].map { isGrouped in
            var settings = TrainingBenchmark.Settings()
            settings.rows = 2
            settings.length = 12
            if isGrouped { settings.groups = .init(prompt: 9, answer: 5, answers: 3) }
            settings.objective = objective
            settings.states = objective == .policy ? .float32 : .bf16
            settings.checkpointing = isGrouped ? .none : .full
            settings.microBatchTokens = 25
            settings.warmUp = 1
            settings.steps = 3
            return settings
        }
    }

    @Test(arguments: cases) func measuresWhatWasAskedFor(settings: TrainingBenchmark.Settings) throws {
        let shape = try #require(BenchmarkShape.known["tiny"])
        let report = try TrainingBenchmark.run(shape, dtype: .float32, device: .cpu, settings: settings)
        #expect(report.seconds.count == 3 && report.seconds.allSatisfy { $0 > 0 })
        #expect(report.microBatches == 2 && report.attention == "cpu")
        // Nothing is predicted from a sequence's last token.
        #expect(report.computedTokens == (settings.groups == nil ? 2 * 11 : 2 * (9 + 3 * 4)))
        #expect(report.cost.tokens == (settings.groups == nil ? 2 * 12 : 2 * 3 * 14))
        // Random weights know nothing: each token is as likely as any other.
        #expect(abs(report.lastLoss - 6.238) < 0.1)
    }

    /// The two ways to the same loss.
    @Test func objectivesAgree() throws {
        let shape = try #require(BenchmarkShape.known["tiny"])
        var settings = TrainingBenchmark.Settings()
        settings.rows = 3
        settings.length = 20
        settings.warmUp = 0
        settings.steps = 1
        let likelihood = try TrainingBenchmark.run(shape, dtype: .float32, device: .cpu, settings: settings).lastLoss
        settings.objective = .score
        let score = try TrainingBenchmark.run(shape, dtype: .float32, device: .cpu, settings: settings).lastLoss
        #expect(abs(likelihood - score) < 1e-5)
    }

    @Test func refusesRowsThatTheModelCannotHold() throws {
        let shape = try #require(BenchmarkShape.known["tiny"])
        var settings = TrainingBenchmark.Settings()
        settings.length = 4096
        #expect(throws: WorkerError.self) {
            try TrainingBenchmark.run(shape, dtype: .float32, device: .cpu, settings: settings)
        }
    }
}
