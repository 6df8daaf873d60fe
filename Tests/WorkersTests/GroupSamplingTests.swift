import Config
import Flow
import Logging
import OrderedCollections
import Rewards
import Synchronization
import Telemetry
import Testing

@testable import Workers

/// Dynamic sampling, baselines, and the step with a critic.
@Suite struct GroupSamplingTests {
    /// Prompts of four groups a batch; of batch b the first b groups have answers that differ.
    private final class Source: PromptProvider, RolloutGroup, RewardGroup, Sendable {
        let batches: Int
        private let notes = Mutex((drawn: 0, seeds: [UInt64]()))
        init(batches: Int = 100) { self.batches = batches }
        var drawn: Int { notes.withLock { $0.drawn } }
        var seeds: [UInt64] { notes.withLock { $0.seeds } }

        func nextBatch() -> [PromptTask]? {
            let batch = notes.withLock { notes -> Int in
                notes.drawn += 1
                return notes.drawn
            }
            guard batch <= batches else { return nil }
            return (0..<4).map { group in
                PromptTask(
                    group: group, tokens: [1], text: "\(group < batch ? "differ" : "same") \(batch).\(group)",
                    dataSource: "", groundTruth: "")
            }
        }
        func state() -> String { "" }
        func restore(_ state: String) {}
        func generate(
            _ prompts: [PromptTask], _ settings: RolloutRequestSettings
        ) -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
            notes.withLock { $0.seeds.append(settings.seed) }
            let answers = prompts.flatMap { prompt in
                (0..<settings.n).map { index in
                    Trajectory(
                        prompt: prompt, response: [Int32(index)], text: settings.temperature == 0 ? "greedy" : "",
                        rolloutLogProbs: [-1], isTruncated: false, weightVersion: 0, weightDigest: "")
                }
            }
            return (answers, ["rollout/generated_tokens": Double(answers.count)])
        }
        func score(_ trajectories: [Trajectory]) -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
            var scored = trajectories
            for index in scored.indices {
                let differs = scored[index].prompt.text.hasPrefix("differ")
                scored[index].score = differs ? Double(scored[index].response[0]) : 1
                scored[index].scoreDetails = ["acc": 1]
                if scored[index].text == "greedy" {
                    scored[index].score = scored[index].prompt.group == 3 ? nil : 0.25
                }
            }
            return (scored, ["reward/failed": 1])
        }
    }

    private func sample(
        _ source: Source, _ filter: GroupFilter?
    ) async throws -> (GroupSampling.Sampled, StepMetrics) {
        let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let sampling = GroupSampling(prompts: source, rollout: source, reward: source, filter: filter, log: log)
        var metrics = StepMetrics(step: 1)
        let request = RolloutRequestSettings(n: 2, temperature: 1, maxTokens: 4, seed: 5)
        let result = try await sampling.sample(
            try #require(source.nextBatch()), request, metrics: &metrics, timer: PhaseTimer(),
            observer: FakeWorkers())
        return (result, metrics)
    }

    @Test func withoutAFilterEveryScoredAnswerIsKept() async throws {
        let source = Source(), (result, metrics) = try await sample(source, nil)
        #expect(source.drawn == 1 && result.kept.count == 8 && metrics["train/num_gen_batches"] == nil)
    }

    @Test func refillsUntilTheBatchIsFullAndDropsTheRest() async throws {
        let source = Source(), (result, metrics) = try await sample(source, GroupFilter())
        // One group of the first batch, two of the second, three of the third, of which one is taken.
        #expect(source.drawn == 3 && result.all.count == 24)
        #expect(Set(result.kept.map(\.prompt.text)) == ["differ 1.0", "differ 2.0", "differ 2.1", "differ 3.0"])
        #expect(Set(result.kept.map(\.prompt.group)).count == 4)
        #expect(Set(result.all.map(\.prompt.group)).count == 12)
        #expect(metrics["train/num_gen_batches"] == 3 && metrics["train/filtered_groups"] == 6)
        #expect(metrics["train/surplus_groups"] == 2)
        #expect(metrics["rollout/generated_tokens"] == 24 && metrics["reward/failed"] == 3)
        #expect(Set(source.seeds).count == 3)
    }

    @Test func makesDoWithWhatItMaySample() async throws {
        let source = Source(), (result, _) = try await sample(source, GroupFilter(maxBatches: 2))
        #expect(source.drawn == 2 && Set(result.kept.map(\.prompt.group)).count == 3)
    }

    @Test func makesDoWithWhatThereIs() async throws {
        let (result, _) = try await sample(Source(batches: 1), GroupFilter())
        #expect(Set(result.kept.map(\.prompt.text)) == ["differ 1.0"])
    }

    @Test func anotherMetricDecides() async throws {
        let (result, _) = try await sample(Source(batches: 2), GroupFilter(metric: "acc", maxBatches: 2))
        #expect(result.kept.isEmpty && result.all.count == 16)
        await #expect(throws: FlowError.self) { try await sample(Source(), GroupFilter(metric: "none")) }
    }

    @Test func greedyAnswersAreBaselines() async throws {
        let source = Source()
        let settings = RolloutRequestSettings(n: 2, temperature: 1, topK: 5, maxTokens: 4, seed: 5)
        let baseline = GreedyBaseline(source, rollout: source, settings: settings)
        let answers = source.generate(try #require(source.nextBatch()), settings).trajectories
        let (scored, metrics) = try await baseline.score(answers)
        #expect(scored.prefix(6).allSatisfy { $0.baselineScore == 0.25 && $0.score != nil })
        // Nothing stands in for a greedy answer whose reward failed.
        #expect(scored.suffix(2).allSatisfy { $0.score == nil })
        #expect(metrics["reward/dropped_baselines"] == 1 && metrics["reward/baseline/mean"] == 0.25)
    }

    @Test func overlongAnswersLoseSome() async throws {
        struct One: Reward {
            func score(_ items: [RewardRequest]) async -> [RewardOutcome] { items.map { _ in .scored(1) } }
        }
        let config = try BatchEstimationTests.config([
            "reward.overlong_buffer.enable=true", "reward.overlong_buffer.len=4", "data.max_response_length=8",
        ])
        let worker = try RewardWorker(reward: One(), policy: .abort, maxResponseTokens: 8)
            .punishing(config.reward.overlongBuffer)
        let answers = [3, 4, 6, 8].map { length in
            Trajectory(
                prompt: PromptTask(group: 0, tokens: [], text: "", dataSource: "", groundTruth: ""),
                response: [Int32](repeating: 0, count: length), text: "", rolloutLogProbs: [], isTruncated: false,
                weightVersion: 0, weightDigest: "")
        }
        let (scored, metrics) = try await worker.score(answers)
        #expect(scored.map(\.score) == [1, 1, 0.5, 0])
        #expect(metrics["reward/overlong_ratio/mean"] == 0.5)
    }
}
