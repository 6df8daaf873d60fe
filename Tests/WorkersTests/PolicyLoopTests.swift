import Flow
import OrderedCollections
import Telemetry
import Testing

@Suite struct PolicyLoopTests {
    @Test func savesEveryFewStepsAndAtTheEndAlwaysAfterTheMetrics() async throws {
        let workers = FakeWorkers()
        let state = try await workers.loop(5, saveEvery: 2).run(from: nil)
        #expect(state.step == 5)
        let saves = workers.events.filter { $0.hasPrefix("save") }
        #expect(saves == ["save 2 at batch 2", "save 4 at batch 4", "save 5 at batch 5"])
        for (index, event) in workers.events.enumerated() where event.hasPrefix("save") {
            #expect(workers.events[index - 1] == "flush")
        }
        #expect(workers.steps.map(\.step) == [1, 2, 3, 4, 5])
    }

    @Test func measuresBeforeOnTheWayAndAfter() async throws {
        let workers = FakeWorkers()
        let state = try await workers.loop(4, evaluateEvery: 2).run(from: nil)
        #expect(workers.events.count { $0 == "evaluate" } == 3)
        #expect(workers.steps.map { $0["val/exact_match"] } == [nil, 0.5, nil, nil])
        // Times are no part of what a resumed run must reproduce.
        #expect(state.evaluations == ["before:val/exact_match": 0.5, "after:val/exact_match": 0.5])
    }

    @Test func stopsAfterTheStepAtHandAndSaves() async throws {
        let workers = FakeWorkers(stopsAfter: 2)
        let state = try await workers.loop(5, saveEvery: 4).run(from: nil)
        #expect(state.step == 2)
        #expect(workers.events.last == "save 2 at batch 2")
        #expect(!workers.events.contains("evaluated after"))
    }

    @Test func goesOnWithTheSameDrawsAsIfNeverStopped() async throws {
        let whole = FakeWorkers()
        _ = try await whole.loop(4).run(from: nil)
        let first = FakeWorkers(stopsAfter: 2)
        let state = try await first.loop(4).run(from: nil)
        let second = FakeWorkers()
        _ = try await second.loop(4).run(from: state)
        let seeds = { (workers: FakeWorkers) in workers.steps.map { $0["rollout/seed"] } }
        #expect(seeds(first) + seeds(second) == seeds(whole))
        #expect(!second.events.contains("evaluated before"))
        #expect(second.events.last == "save 4 at batch 4")
    }

    @Test func finishedRunDoesNothing() async throws {
        let workers = FakeWorkers()
        let done = LoopState(step: 3, promptState: "3", evaluations: ["after:val/exact_match": 1])
        #expect(try await workers.loop(3).run(from: done) == done)
        #expect(workers.events.isEmpty)
    }

    @Test func finishedRunThatWasKilledBeforeItsLastMeasureIsMeasured() async throws {
        let workers = FakeWorkers()
        let state = try await workers.loop(3).run(from: LoopState(step: 3, promptState: "3"))
        #expect(state.evaluations["after:val/exact_match"] == 0.5)
        #expect(workers.events.contains("generate") == false)
    }

    @Test func extendedRunIsMeasuredAtItsNewEnd() async throws {
        let workers = FakeWorkers()
        let ended = LoopState(
            step: 2, promptState: "2", evaluations: ["before:val/exact_match": 0.25, "after:val/exact_match": 0.375])
        let state = try await workers.loop(3).run(from: ended)
        #expect(state.evaluations == ["before:val/exact_match": 0.25, "after:val/exact_match": 0.5])
    }

    @Test func answersWithoutAScoreAreLeftOutOfTheUpdate() async throws {
        let workers = FakeWorkers(scores: { $0 == 1 ? [nil, 3] : [1, 2] })
        _ = try await workers.loop(2, recomputes: true).run(from: nil)
        #expect(workers.events.filter { $0.hasPrefix("update") } == ["update with 1", "update with 0 1"])
        #expect(workers.events.filter { $0.hasPrefix("logProbs") } == ["logProbs of 1", "logProbs of 2"])
        #expect(workers.steps.map { $0["critic/score/mean"] } == [3, 1.5])
    }

    @Test func stepOfWhichEveryRewardFailedLeavesTheWeights() async throws {
        let workers = FakeWorkers(scores: { $0 == 1 ? [nil, nil] : [1, 2] })
        let state = try await workers.loop(2).run(from: nil)
        #expect(state.step == 2)
        #expect(workers.events.filter { $0.hasPrefix("update") } == ["update with 0 1"])
        #expect(workers.steps[0]["critic/score/mean"] == nil)
    }

    /// Foresees two, and notes what it is asked.
    private struct FakeCritic: CriticGroup {
        let workers: FakeWorkers
        func values(_ trajectories: [Trajectory]) -> [[Float]] {
            workers.note("values of \(trajectories.count)")
            return trajectories.map { $0.response.map { _ in 2 } }
        }
        func update(_ trajectories: [Trajectory], seed: UInt64) -> PhaseMetrics {
            let isWhole = trajectories.allSatisfy { $0.values == [2] && $0.returns == [Float($0.score ?? .nan)] }
            workers.note(isWhole ? "critic learns" : "critic lacks something")
            return ["critic/vf_loss": 1]
        }
    }

    @Test func criticLearnsBeforeThePolicyAndAloneAtFirst() async throws {
        let workers = FakeWorkers()
        _ = try await workers.loop(3, critic: FakeCritic(workers: workers), criticWarmup: 2).run(from: nil)
        let events = workers.events.filter { $0.contains("critic") || $0.hasPrefix("update") || $0.hasPrefix("values") }
        let alone = ["values of 2", "critic learns"]
        #expect(events == alone + alone + alone + ["update with 0 1"])
        #expect(workers.steps.allSatisfy { $0["critic/vf_loss"] == 1 })
        #expect(workers.steps.map { $0["actor/samples"] } == [nil, nil, 2])
    }

    @Test func klCoefficientGoesOnFromStepToStepAndRunToRun() async throws {
        let workers = FakeWorkers()
        let state = try await workers.loop(2).run(from: nil)
        #expect(state.klCoefficient == 0.25)
        #expect(workers.events.filter { $0.hasPrefix("kl") } == ["kl 0.5"])
        let later = FakeWorkers()
        _ = try await later.loop(3).run(from: state)
        #expect(later.events.filter { $0.hasPrefix("kl") } == ["kl 0.25"])
    }
}
