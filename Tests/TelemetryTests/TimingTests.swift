import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct TimingTests {
    @Test func measuresPhasesOfEachStep() async throws {
        let clock = ManualClock()
        let timer = PhaseTimer(clock: clock)
        timer.measure(.generate) { clock.advance(.seconds(6)) }
        timer.measure(.update) { clock.advance(.seconds(1)) }
        await timer.measure(.update) {
            await Task.yield()
            clock.advance(.seconds(2))
        }
        clock.advance(.seconds(1))
        let times = timer.finishStep()
        #expect(
            times.metrics == [
                "time/step_s": 10, "time/generate_s": 6, "time/update_s": 3, "perf/share/generate": 0.6,
                "perf/share/update": 0.3, "perf/share/other": 1 - (0.6 + 0.3),
            ])
        #expect(times.metrics.keys.allSatisfy { $0.dependsOnClock })

        clock.advance(.seconds(2))
        #expect(timer.finishStep() == PhaseTimes(step: .seconds(2), phases: [:]))
    }

    @Test func countsAPhaseThatThrows() {
        struct Stop: Error {}
        let clock = ManualClock()
        let timer = PhaseTimer(clock: clock)
        #expect(throws: Stop.self) {
            try timer.measure(.score) {
                clock.advance(.seconds(3))
                throw Stop()
            }
        }
        #expect(timer.finishStep().phases == [.score: .seconds(3)])
    }

    @Test func overlappingPhasesLeaveNoNegativeRest() {
        let times = PhaseTimes(step: .seconds(4), phases: [.generate: .seconds(4), .score: .seconds(2)])
        #expect(times.shares == [.generate: 1, .score: 0.5])
        #expect(PhaseTimes(step: .zero, phases: [.score: .zero]).shares.isEmpty)
    }

    @Test(arguments: ["", "a/b", "a b", "é"])
    func refusesBadPhaseNames(_ name: String) {
        #expect { try Phase(name) } throws: { ($0 as? TelemetryError)?.code == .invalidName }
    }

    @Test func paceFollowsRecentSteps() throws {
        var pace = StepPace()
        #expect(pace.seconds(forSteps: 3) == nil)
        pace.add(stepSeconds: 10)
        #expect(pace.secondsPerStep == 10)
        pace.add(stepSeconds: .nan)
        #expect(pace.secondsPerStep == 10)
        for _ in 0..<100 { pace.add(stepSeconds: 4) }
        let left = try #require(pace.seconds(forSteps: 5))
        #expect(abs(left - 20) < 1e-4)
    }
}
