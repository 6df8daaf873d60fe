import Flow
import OrderedCollections
import Rewards
import Telemetry
import Testing
import Workers

@Suite struct RewardWorkerTests {
    /// Scores by the answer's text; fails where that is no number.
    private struct Scripted: Reward {
        func score(_ items: [RewardRequest]) async -> [RewardOutcome] {
            items.map { item in
                Double(item.response).map { .scored($0) }
                    ?? .failed(RewardFailure(.raised, "no number: \(item.response)"))
            }
        }
    }

    private func score(
        _ groups: [[String]], _ policy: RewardFailurePolicy
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let answers = groups.enumerated().flatMap { group, texts in
            texts.map { text in
                Trajectory(
                    prompt: PromptTask(group: group, tokens: [], text: "", dataSource: "", groundTruth: ""),
                    response: [],
                    text: text, rolloutLogProbs: [], isTruncated: false, weightVersion: 0, weightDigest: "")
            }
        }
        return try await RewardWorker(reward: Scripted(), policy: policy, maxResponseTokens: 8).score(answers)
    }

    @Test(
        arguments: [
            (RewardFailurePolicy.dropSample, [1, nil, 3, 4] as [Double?], 1.0),
            (.dropGroup, [nil, nil, 3, 4], 2), (.scoreAs(-1), [1, -1, 3, 4], 0),
        ])
    func failuresAreCountedWhateverBecomesOfThem(
        policy: RewardFailurePolicy, scores: [Double?], dropped: Double
    ) async throws {
        let (answers, metrics) = try await score([["1", "x"], ["3", "4"]], policy)
        #expect(answers.map(\.score) == scores)
        #expect(metrics["reward/failed"] == 1)
        #expect(metrics["reward/failed_raised"] == 1)
        #expect(metrics["reward/dropped_samples"] == dropped)
    }

    @Test func abortTellsTheFirstFailure() async throws {
        let error = await #expect(throws: RewardError.self) { try await score([["1", "x"]], .abort) }
        #expect(error?.description.contains("no number: x") == true)
    }

    @Test func withoutFailuresThereAreNone() async throws {
        let (_, metrics) = try await score([["1", "2"]], .abort)
        #expect(metrics["reward/failed"] == 0 && metrics["reward/dropped_samples"] == 0)
        #expect(metrics["reward/failed_raised"] == nil)
    }
}
