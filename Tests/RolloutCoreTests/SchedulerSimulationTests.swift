import Testing

@testable import RolloutCore

/// Random streams of requests through random limits: every output is the plain loop's, no block is lost or held twice, and all
/// comes to an end.
@Suite struct SchedulerSimulationTests {
    @Test(arguments: 0..<40) func anyStreamOfRequests(batch: Int) throws {
        let all = try run(batch) { Scenario(&$0) }
        // A batch in which nothing of this happens would show nothing.
        #expect(all.recomputed > 0 && all.swappedOut > 0 && all.swappedIn > 0 && all.foundTokens > 0)
        #expect(all.drafted == 0)
    }

    /// Drafts, right and wrong, beside everything else that can happen: no token is another.
    @Test(arguments: 0..<40) func draftsChangeNoToken(batch: Int) throws {
        let all = try run(batch + 1000) { random in
            var scenario = Scenario(&random)
            scenario.speculate(&random)
            return scenario
        }
        #expect(all.recomputed > 0 && all.swappedOut > 0 && all.swappedIn > 0 && all.foundTokens > 0)
        #expect(all.accepted > 0 && all.drafted > all.accepted)
    }

    /// Pauses in which the cache is given up, weights that change and limits that change, between any two steps.
    @Test(arguments: 0..<20) func interruptionsChangeNoToken(batch: Int) throws {
        let all = try run(batch + 4000, streams: 25) { random in
            var scenario = Scenario(&random)
            if random.flag(50) { scenario.speculate(&random) }
            scenario.interrupt(&random)
            return scenario
        }
        #expect(all.recomputed > 0 && all.swappedOut > 0 && all.foundTokens > 0)
    }

    /// Prompts that are computed in one step or wait for one with room; with drafts and pauses too.
    @Test(arguments: 0..<20) func wholePromptsChangeNoToken(batch: Int) throws {
        let all = try run(batch + 8000, streams: 25) { random in
            var scenario = Scenario(&random)
            let longest = scenario.requests.map(\.request.prompt.count).max() ?? 1
            scenario.limits.cutsPrompts = false
            scenario.limits.tokensPerStep = max(scenario.limits.runningSequences, longest + random.int(0...3))
            if random.flag(30) { scenario.speculate(&random) }
            if random.flag(30) { scenario.interrupt(&random) }
            return scenario
        }
        #expect(all.recomputed > 0 && all.swappedOut > 0 && all.foundTokens > 0)
    }

    private func run(_ batch: Int, streams: Int = 50, _ make: (inout Random) -> Scenario) throws -> SchedulerStatistics
    {
        var all = SchedulerStatistics(), copies = 0
        for seed in batch * streams..<(batch + 1) * streams {
            var random = Random(state: UInt64(seed) &* 0x1234_5678_9ABC_DEF1)
            let scenario = make(&random)
            do {
                var simulation = try Simulation(scenario)
                try simulation.run()
                let statistics = simulation.scheduler.statistics
                all.recomputed += statistics.recomputed
                all.swappedOut += statistics.swappedOut
                all.swappedIn += statistics.swappedIn
                all.foundTokens += statistics.foundTokens
                all.drafted += statistics.drafted
                all.accepted += statistics.accepted
                copies += simulation.copies
            } catch {
                Issue.record("seed \(seed), \(scenario.limits): \(error)")
                break
            }
        }
        #expect(copies > 0)
        return all
    }
}
