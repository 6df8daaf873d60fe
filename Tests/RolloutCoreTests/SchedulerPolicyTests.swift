import Testing

@testable import RolloutCore

/// Who goes first, who waits and who yields.
@Suite struct SchedulerPolicyTests {
    private func request(_ count: Int, from first: Int = 100, n: Int = 1, maxTokens: Int = 4) -> RolloutRequest {
        RolloutRequest(
            prompt: (0..<count).map { Int32(first + $0) },
            sampling: SamplingParameters(n: n, maxTokens: maxTokens))
    }

    /// One step with the same token for every draw; the requests it computed tokens of, and what ended.
    private func step(_ scheduler: inout Scheduler) throws -> (plan: StepPlan, ended: [FinishedSequence]) {
        let next = scheduler.next()
        let plan = try #require(next)
        let ended = scheduler.complete(plan, Array(repeating: DrawOutcome(token: 1), count: plan.drawCount))
        #expect(scheduler.brokenInvariant() == nil)
        return (plan, ended)
    }

    private func finishAll(_ scheduler: inout Scheduler) throws -> [FinishedSequence] {
        var ended: [FinishedSequence] = []
        while !scheduler.isDone { ended += try step(&scheduler).ended }
        return ended
    }

    @Test func aPromptWaitsUntilItsBlocksAreFree() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 10, blockSize: 4))
        try scheduler.add(request(20, maxTokens: 3), id: 0)
        try scheduler.add(request(20, from: 500, maxTokens: 3), id: 1)
        // Five blocks each, but a running sequence is left one to go on with.
        for _ in 0..<3 {
            let tokens = try step(&scheduler).plan.work.count
            #expect(tokens == 1)
        }
        let then = try step(&scheduler).plan
        #expect(then.tokens == 20 && then.draws.map(\.request) == [1])
    }

    @Test func noOneOvertakesAnEarlierRequestThatDoesNotFit() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 10, blockSize: 4))
        try scheduler.add(request(20, maxTokens: 8), id: 0)
        try scheduler.add(request(24, from: 500), id: 1)
        for id in 2..<4 { try scheduler.add(request(2, from: 900), id: id) }
        var started: [Int] = []
        while !scheduler.isDone {
            started += try step(&scheduler).plan.draws.filter { $0.position == 0 }.map(\.request)
        }
        #expect(started == [0, 1, 2, 3] && scheduler.statistics.yields == 0)
    }

    @Test func lowerPrioritiesGoFirstAndEqualOnesInOrder() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, runningSequences: 1))
        for (id, priority) in [2, 1, 0, 1, 2, 0].enumerated() {
            try scheduler.add(request(6), id: id, priority: priority)
        }
        #expect(try finishAll(&scheduler).map(\.request) == [2, 5, 1, 3, 0, 4])
    }

    @Test func everyRunningSequenceDecodesInEveryStep() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(blocks: 100, blockSize: 4, tokensPerStep: 8, runningSequences: 4))
        for id in 0..<3 { try scheduler.add(request(2, maxTokens: 9), id: id) }
        _ = try step(&scheduler)
        // A prompt that fills many steps takes what the others leave.
        try scheduler.add(request(30, from: 500), id: 3)
        for _ in 0..<6 {
            let plan = try step(&scheduler).plan
            #expect(plan.work.prefix(3).map(\.count) == [1, 1, 1])
            #expect(plan.tokens == 8)
        }
    }

    /// A long prompt of low rank in a stream of short ones that never ends: it is served in its turn.
    @Test func aStreamOfShortRequestsStarvesNobody() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(blocks: 24, blockSize: 4, tokensPerStep: 12, runningSequences: 3, prefillChunk: 6))
        var id = 0, steps = 0, longEnded = false
        func feed() throws {
            while scheduler.waitingCount < 4 {
                id += 1
                try scheduler.add(request(5, from: id, maxTokens: 6), id: id)
            }
        }
        try feed()
        try scheduler.add(request(60, from: 5000, maxTokens: 20), id: 0)
        while !longEnded, steps < 200 {
            try feed()
            longEnded = try step(&scheduler).ended.contains { $0.request == 0 }
            steps += 1
        }
        #expect(longEnded)
    }

    @Test func theFirstInOrderGoesOnInEveryStep() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(
                blocks: 12, blockSize: 2, tokensPerStep: 64, runningSequences: 8, preemption: .swap(hostBlocks: 4)))
        for id in 0..<6 { try scheduler.add(request(3, from: 50 * id, maxTokens: 20), id: id) }
        var left = Set(0..<6)
        while let first = left.min() {
            let (plan, ended) = try step(&scheduler)
            #expect(plan.draws.contains { $0.request == first })
            left.subtract(ended.map(\.request))
        }
        #expect(scheduler.statistics.swappedOut > 0 && scheduler.statistics.recomputed > 0)
    }

    @Test func whatIsSwappedOutComesBackAsItWas() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 8, blockSize: 4, preemption: .swap(hostBlocks: 8)))
        try scheduler.add(request(8, maxTokens: 16), id: 0)
        try scheduler.add(request(8, from: 500, maxTokens: 16), id: 1)
        var out: [StepPlan.Move] = [], back: [StepPlan.Move] = [], tokens = 0
        while !scheduler.isDone {
            let plan = try step(&scheduler).plan
            out += plan.swapsOut
            back += plan.swapsIn
            tokens += plan.tokens
        }
        #expect(scheduler.statistics.swappedOut == 1 && scheduler.statistics.recomputed == 0)
        #expect(!out.isEmpty && out.map(\.to) == back.map(\.from))
        // Nothing is computed twice: both prompts, and every new token but the last.
        #expect(tokens == 2 * (8 + 15))
    }

    @Test func noMoreRunThanTheLimitWhichMayChange() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(blocks: 100, blockSize: 4, tokensPerStep: 32, runningSequences: 4))
        for id in 0..<12 { try scheduler.add(request(2, maxTokens: 3), id: id) }
        _ = try step(&scheduler)
        #expect(scheduler.runningCount == 4 && scheduler.waitingCount == 8)
        try scheduler.setLimits(runningSequences: 2)
        let second = try step(&scheduler).plan
        #expect(second.work.count == 4)
        _ = try step(&scheduler)
        for _ in 0..<3 {
            let plan = try step(&scheduler).plan
            #expect(plan.work.count == 2)
        }
        try scheduler.setLimits(runningSequences: 6)
        let wide = try step(&scheduler).plan
        #expect(wide.work.count == 6 && Set(wide.work.map(\.row)) == Set(0..<6))
        let bad = #expect(throws: SchedulerError.self) { try scheduler.setLimits(runningSequences: 33) }
        #expect(bad?.code == .badLimits && scheduler.limits.runningSequences == 6)
        _ = try finishAll(&scheduler)
        #expect(scheduler.pool.freeCount == 100)
    }

    @Test(arguments: [SchedulerLimits.Preemption.recompute, .swap(hostBlocks: 20)])
    func abortGivesBackWhatWaitsRunsOrIsSwapped(_ preemption: SchedulerLimits.Preemption) throws {
        var scheduler = try Scheduler(
            SchedulerLimits(blocks: 8, blockSize: 4, runningSequences: 2, preemption: preemption))
        for id in 0..<3 { try scheduler.add(request(8, from: 100 * id, maxTokens: 16), id: id) }
        while scheduler.statistics.yields == 0 { _ = try step(&scheduler) }
        let next = scheduler.next()
        let underWay = try #require(next)
        for id in 0..<3 {
            let ended = scheduler.abort(id)
            #expect(ended.map(\.reason) == [.abort])
            #expect(scheduler.brokenInvariant() == nil)
        }
        #expect(scheduler.isDone && scheduler.waitingCount == 0)
        let ended = scheduler.complete(underWay, underWay.draws.map { _ in DrawOutcome(token: 1) })
        #expect(ended.isEmpty && scheduler.pool.freeCount == 8)
    }

    @Test func aDroppedCacheIsComputedAgain() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 40, blockSize: 4, prefixCaching: true))
        try scheduler.add(request(10, n: 3, maxTokens: 8), id: 0)
        for _ in 0..<4 { _ = try step(&scheduler) }
        scheduler.dropCache()
        #expect(scheduler.pool.freeCount == 40 && scheduler.pool.findableCount == 0)
        #expect(scheduler.runningCount == 0 && scheduler.waitingCount == 3 && scheduler.statistics.yields == 0)
        // Fourteen tokens each, nothing drawn is lost; they are the same, so that the first computes three blocks for all.
        let again = try step(&scheduler).plan
        #expect(again.tokens == 14 + 2 + 2 && again.draws.map(\.position) == [4, 4, 4])
        let ended = try finishAll(&scheduler)
        #expect(ended.allSatisfy { $0.tokens.count == 8 && $0.reason == .length })
    }

    /// What the books say is worth only as much as what they would notice.
    @Test func theInvariantsNoticeWhatIsWrong() throws {
        func broken(_ change: (inout Scheduler) throws -> Void) throws -> Bool {
            var scheduler = try Scheduler(SchedulerLimits(blocks: 20, blockSize: 4, runningSequences: 4))
            for id in 0..<3 { try scheduler.add(request(6), id: id) }
            _ = try step(&scheduler)
            try change(&scheduler)
            return scheduler.brokenInvariant() != nil
        }
        #expect(try !broken { _ in })
        #expect(try broken { _ = $0.pool.take() })
        #expect(try broken { $0.pool.hold($0.sequences[0].blocks[0]) })
        #expect(try broken { $0.sequences[1].blocks = $0.sequences[0].blocks })
        #expect(try broken { $0.sequences[1].row = $0.sequences[0].row })
        #expect(try broken { $0.running.swapAt(0, 1) })
        #expect(try broken { $0.sequences[0].computed = 30 })
        #expect(try broken { $0.requests[0].members = [] })
        #expect(try broken { $0.requests[0].samplesLeft = 2 })
    }
}
