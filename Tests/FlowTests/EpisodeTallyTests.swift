import Foundation
import OrderedCollections
import Telemetry
import Testing

@testable import Flow

@Suite struct EpisodeTallyTests {
    private static func episode(
        _ ending: String, turns: Int, failure: String? = nil, details: [String: Double] = [:], mask: [Bool]? = nil,
        seconds: Double = 0
    ) -> Trajectory {
        var trajectory = Trajectory(
            prompt: PromptTask(group: 0, tokens: [1], text: "", dataSource: "", groundTruth: ""),
            response: (mask ?? []).map { _ in 7 }, text: "", rolloutLogProbs: [], isTruncated: false, weightVersion: 0,
            weightDigest: "")
        trajectory.responseMask = mask
        trajectory.episode = EpisodeOutcome(
            ending: ending, answer: "", reward: 0, failure: failure.map { .init(kind: $0, message: "\($0)!") },
            turns: turns, toolCalls: turns - 1, toolErrors: 0.5, details: details, environmentSeconds: seconds)
        return trajectory
    }

    private static let episodes = [
        episode("done", turns: 3, details: ["a b/c": 1, "/": 2], mask: [true, false, true], seconds: 2),
        episode("turn_limit", turns: 2, mask: [true, true], seconds: 0.5),
        episode("failed_timed_out", turns: 1, failure: "timed_out", details: ["a b/c": 2], mask: [true], seconds: 9.5),
        episode("failed_died", turns: 0, failure: "died"),
    ]

    @Test func `Failed episodes count too, and every number has a name`() throws {
        let metrics = try EpisodeTally(Self.episodes).metrics()
        let expected: [(MetricName, Double)] = [
            ("episode/count", 4), ("episode/turns/mean", 1.5), ("episode/turns/max", 3), ("episode/failed", 2),
            ("episode/ended/done", 1), ("episode/ended/turn_limit", 1), ("episode/ended/token_limit", 0),
            ("episode/ended/truncated_reply", 0), ("episode/ended/failed_timed_out", 1),
            ("episode/ended/failed_died", 1), ("episode/drawn_tokens/mean", 1.25), ("episode/shown_tokens/mean", 0.25),
            ("episode/tool_calls/mean", 0.5), ("episode/tool_errors/mean", 0.5), ("episode/detail/a_b/c", 0.75),
            ("episode/detail/_/_", 0.5), ("perf/environment_seconds/mean", 3), ("perf/environment_seconds/max", 9.5),
        ]
        for (name, value) in expected { #expect(metrics[name] == value, "\(name)") }
        #expect(metrics.count == expected.count)
        #expect(try EpisodeTally().metrics().isEmpty)
    }

    @Test(arguments: 0...4) func `Parts add up to the whole, also after they were written down`(_ cut: Int) throws {
        var parts = EpisodeTally(Array(Self.episodes[..<cut]))
        parts = try JSONDecoder().decode(EpisodeTally.self, from: JSONEncoder().encode(parts))
        parts.add(EpisodeTally(Array(Self.episodes[cut...])))
        #expect(parts == EpisodeTally(Self.episodes))
    }

    @Test func `Of groups, counts are sums and means are means, whichever ended first`() throws {
        let rewards: [PhaseMetrics] = [
            ["reward/failed": 1, "reward/baseline/mean": 0.1], ["reward/failed": 2],
            ["reward/failed": 0, "reward/baseline/mean": 0.7],
        ]
        func figures(_ order: [Int]) -> GroupFigures {
            var figures = GroupFigures()
            for id in order { figures.add(id, [Self.episodes[id]], rewards[id]) }
            return figures
        }
        let metrics = try figures([0, 1, 2]).metrics()
        #expect(metrics["reward/failed"] == 3 && metrics["reward/baseline/mean"] == (0.1 + 0.7) / 2)
        #expect(metrics["episode/count"] == 3)
        #expect(try figures([2, 0, 1]).metrics() == metrics)
        var waiting = figures([0, 1, 2])
        #expect(waiting.take(but: [0, 2]) == figures([1]) && waiting == figures([2, 0]))
    }
}
