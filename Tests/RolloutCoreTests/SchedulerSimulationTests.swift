import Testing

@testable import RolloutCore

/// Random streams of requests through random limits: every output is the plain loop's, no block is lost or held twice, and all
/// comes to an end.
@Suite struct SchedulerSimulationTests {
    struct Random {
        var state: UInt64
        mutating func int(_ range: ClosedRange<Int>) -> Int {
            state = SplitMix64.mix(state)
            return range.lowerBound + Int(state % UInt64(range.count))
        }
        mutating func flag(_ percent: Int) -> Bool { int(1...100) <= percent }
    }

    struct Scenario {
        var limits: SchedulerLimits
        var requests: [(request: RolloutRequest, priority: Int, arrivesAt: Int, abortsAt: Int?)] = []
        /// Steps planned before the first of them is complete.
        var ahead: Int
        var weightsChangeAt: Set<Int> = []

        init(_ random: inout Random) {
            let size = [1, 2, 4, 16].randomElement(&random)
            let blocks = random.int(6...60)
            let rows = random.int(1...12)
            let swap: SchedulerLimits.Preemption = random.flag(50) ? .swap(hostBlocks: random.int(0...30)) : .recompute
            limits = SchedulerLimits(
                blocks: blocks, blockSize: size, tokensPerStep: max(rows, random.int(1...80)), runningSequences: rows,
                prefillChunk: random.flag(50) ? random.int(1...40) : .max, prefixCaching: random.flag(60),
                preemption: swap)
            ahead = random.int(1...3)
            let common = (0..<random.int(0...20)).map { _ in Int32(random.int(0...22)) }
            for _ in 0..<random.int(1...14) {
                var prompt = random.flag(60) ? common : []
                prompt += (0..<random.int(1...25)).map { _ in Int32(random.int(0...22)) }
                var most = random.int(1...30)
                // What could never fit is refused, and has its own test.
                let room = blocks * size
                if prompt.count > room { prompt = Array(prompt.prefix(room)) }
                most = min(most, room - prompt.count + 1)
                requests.append(
                    (
                        RolloutRequest(
                            prompt: prompt,
                            sampling: SamplingParameters(
                                n: random.int(1...6), maxTokens: most, stopTokenIDs: random.flag(50) ? [0] : [])),
                        random.int(0...2), random.flag(70) ? 0 : random.int(0...30),
                        random.flag(8) ? random.int(0...30) : nil
                    ))
            }
            if random.flag(30) { weightsChangeAt = Set((0..<3).map { _ in random.int(1...40) }) }
        }
    }

    @Test(arguments: 0..<40) func anyStreamOfRequests(batch: Int) throws {
        var all = SchedulerStatistics(), copies = 0
        for seed in batch * 50..<(batch + 1) * 50 {
            var random = Random(state: UInt64(seed) &* 0x1234_5678_9ABC_DEF1)
            let scenario = Scenario(&random)
            do {
                let (statistics, copied) = try run(scenario)
                all.recomputed += statistics.recomputed
                all.swappedOut += statistics.swappedOut
                all.swappedIn += statistics.swappedIn
                all.foundTokens += statistics.foundTokens
                copies += copied
            } catch {
                Issue.record("seed \(seed), \(scenario.limits): \(error)")
                return
            }
        }
        // A batch in which nothing of this happens would show nothing.
        #expect(all.recomputed > 0 && all.swappedOut > 0 && all.swappedIn > 0 && all.foundTokens > 0 && copies > 0)
    }

    private func run(_ scenario: Scenario) throws -> (SchedulerStatistics, copies: Int) {
        var scheduler = try Scheduler(scenario.limits), model = SimulatedModel(scenario.limits)
        var arrived = 0, tick = 0, idle = 0, copies = 0
        var finished: [FinishedSequence] = []
        var underWay: [(plan: StepPlan, known: [[Int32]])] = []
        let order = scenario.requests.indices.sorted {
            (scenario.requests[$0].arrivesAt, $0) < (scenario.requests[$1].arrivesAt, $1)
        }
        func check() throws {
            if let broken = scheduler.brokenInvariant() { throw SimulatedModel.Broken("at \(tick): " + broken) }
        }
        while arrived < order.count || !scheduler.isDone || !underWay.isEmpty {
            tick += 1
            while arrived < order.count, scenario.requests[order[arrived]].arrivesAt < tick {
                let next = scenario.requests[order[arrived]]
                try scheduler.add(next.request, id: order[arrived], priority: next.priority)
                arrived += 1
            }
            for (id, request) in scenario.requests.enumerated() where request.abortsAt == tick {
                finished += scheduler.abort(id)
                try check()
            }
            if scenario.weightsChangeAt.contains(tick) { scheduler.weightsChanged() }
            if underWay.count < scenario.ahead, let plan = scheduler.next() {
                idle = 0
                guard plan.tokens <= scenario.limits.tokensPerStep else { throw SimulatedModel.Broken("over budget") }
                copies += plan.copies.count
                underWay.append((plan, plan.work.map { scheduler.tokens(of: $0.sequence) }))
            } else if !underWay.isEmpty {
                idle = 0
                let (plan, known) = underWay.removeFirst()
                finished += scheduler.complete(plan, try model.run(plan, known: known))
            } else if arrived == order.count || scenario.requests[order[arrived]].arrivesAt > tick {
                idle += 1
                if idle > 100 { throw SimulatedModel.Broken("nothing runs, and it is not done") }
            }
            try check()
            if tick > 100_000 { throw SimulatedModel.Broken("it does not end") }
        }
        guard scheduler.pool.freeCount == scenario.limits.blocks else { throw SimulatedModel.Broken("a block is lost") }
        try compare(finished, scenario)
        return (scheduler.statistics, copies)
    }

    private func compare(_ finished: [FinishedSequence], _ scenario: Scenario) throws {
        var seen: Set<[Int]> = []
        for one in finished {
            guard seen.insert([one.request, one.sample]).inserted else {
                throw SimulatedModel.Broken("request \(one.request) sample \(one.sample) ended twice")
            }
            let wanted = SimulatedModel.reference(
                scenario.requests[one.request].request, id: one.request, sample: one.sample)
            let agrees =
                one.reason == .abort
                ? scenario.requests[one.request].abortsAt != nil && wanted.tokens.starts(with: one.tokens)
                : one.tokens == wanted.tokens && one.reason == wanted.reason
            guard agrees else {
                throw SimulatedModel.Broken("request \(one.request) sample \(one.sample): \(one), not \(wanted)")
            }
        }
        let all = scenario.requests.reduce(0) { $0 + $1.request.sampling.n }
        guard seen.count == all else { throw SimulatedModel.Broken("\(seen.count) of \(all) samples ended") }
    }
}

extension Array {
    fileprivate func randomElement(_ random: inout SchedulerSimulationTests.Random) -> Element {
        self[random.int(0...count - 1)]
    }
}
