import Models
import TensorCore
import Testing

@testable import Workers

@Suite struct TrainingBenchmarkTests {
    /// 6 N + 6 L S H D a token, by hand for Qwen2-7B: N = 28 (3584 · (2 · 3584 + 2 · 512) + 3 · 3584 · 18944) + 3584 · 152064.
    @Test func countsUsefulOperations() throws {
        let shape = try #require(BenchmarkShape.known["qwen2-7b"])
        var settings = TrainingBenchmark.Settings()
        let layers = 28.0, hidden = 3584.0, inner = 18944.0, tokens = 32768.0
        let layer = hidden * (2 * hidden + 1024) + 3 * hidden * inner
        let weights = layers * layer + hidden * 152_064
        let attention = 2 * layers * 4096 * hidden, head = 2 * hidden * 152_064
        // The last product of a layer is not computed again.
        let again = 2 * weights - head - 2 * layers * hidden * inner + attention
        let cost = TrainingCost(shape.decoder, settings)
        #expect(cost.tokens == 32768)
        #expect(cost.useful == tokens * (6 * weights + 3 * attention))
        #expect(cost.computed == cost.useful + tokens * again)
        settings.checkpointing = .none
        #expect(TrainingCost(shape.decoder, settings).computed == cost.useful)
        settings.objective = .policy
        #expect(TrainingCost(shape.decoder, settings).computed == cost.useful + tokens * head)
        settings.objective = .score
        #expect(TrainingCost(shape.decoder, settings).useful == tokens * (2 * weights + attention))
    }

    static let cases: [TrainingBenchmark.Settings] = TrainingBenchmark.Objective.allCases.flatMap { objective in
        [false, true].map { isGrouped in
            var settings = TrainingBenchmark.Settings()
            settings.rows = 2
            settings.length = 14
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
        #expect(report.computedTokens == (settings.groups == nil ? 2 * 13 : 2 * (9 + 3 * 4)))
        #expect(report.cost.tokens == (settings.groups == nil ? 2 * 14 : 2 * 3 * 14))
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
