import Testing

@testable import RolloutCore

@Suite struct SchedulerTests {
    private func prompt(_ count: Int, from first: Int = 100) -> [Int32] { (0..<count).map { Int32(first + $0) } }

    private func request(_ prompt: [Int32], n: Int = 1, maxTokens: Int = 4) -> RolloutRequest {
        RolloutRequest(prompt: prompt, sampling: SamplingParameters(n: n, maxTokens: maxTokens))
    }

    private func plan(_ scheduler: inout Scheduler) throws -> StepPlan {
        let plan = scheduler.next()
        return try #require(plan)
    }

    /// Completes a step with the same token for every draw.
    private func complete(_ scheduler: inout Scheduler, _ plan: StepPlan, _ token: Int32 = 1) -> [FinishedSequence] {
        scheduler.complete(plan, Array(repeating: DrawOutcome(token: token), count: plan.drawCount))
    }

    @Test func samplesOfAPromptShareItsBlocks() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4))
        try scheduler.add(request(prompt(18), n: 8, maxTokens: 8), id: 0)
        let first = try plan(&scheduler)
        #expect(first.tokens == 18 && first.drawCount == 8)
        #expect(first.work.count == 1)
        #expect(scheduler.pool.freeCount == 95)
        _ = complete(&scheduler, first)
        // The last, partly filled block is copied for all but one; the four full ones stay shared.
        let second = try plan(&scheduler)
        #expect(second.tokens == 8 && second.work.count == 8)
        #expect(second.copies.count == 7)
        #expect(scheduler.pool.freeCount == 100 - 4 - 8)
        #expect(Set(second.work.map { Array($0.blocks.prefix(4)) }).count == 1)
        #expect(Set(second.work.map { $0.blocks[4] }).count == 8)
    }

    @Test func stepsMixPromptsAndDecodingWithinTheBudget() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(blocks: 100, blockSize: 4, tokensPerStep: 16, runningSequences: 8))
        try scheduler.add(request(prompt(10), maxTokens: 20), id: 0)
        try scheduler.add(request(prompt(30, from: 500), maxTokens: 20), id: 1)
        var plans: [StepPlan] = []
        for _ in 0..<4 {
            let step = try plan(&scheduler)
            plans.append(step)
            _ = complete(&scheduler, step)
        }
        #expect(plans.map { $0.work.map(\.count) } == [[10, 6], [1, 15], [1, 9], [1, 1]])
        #expect(plans.map(\.drawCount) == [1, 1, 2, 2])
    }

    @Test func aLongPromptIsCutIntoChunks() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(blocks: 100, blockSize: 4, tokensPerStep: 64, runningSequences: 8, prefillChunk: 12))
        try scheduler.add(request(prompt(30)), id: 0)
        var counts: [Int] = []
        while let plan = scheduler.next() {
            counts += plan.work.map(\.count)
            _ = complete(&scheduler, plan)
        }
        #expect(counts == [12, 12, 6, 1, 1, 1])
        #expect(scheduler.isDone)
    }

    @Test func aPromptThatIsNotCutWaitsForAStepWithRoom() throws {
        var scheduler = try Scheduler(
            SchedulerLimits(
                blocks: 100, blockSize: 4, tokensPerStep: 16, runningSequences: 8, prefillChunk: 2, cutsPrompts: false))
        try scheduler.add(request(prompt(10), maxTokens: 20), id: 0)
        try scheduler.add(request(prompt(12, from: 500), maxTokens: 20), id: 1)
        // Nobody goes before one that waits for room.
        try scheduler.add(request(prompt(3, from: 900), maxTokens: 20), id: 2)
        var counts: [[Int]] = []
        for _ in 0..<4 {
            let step = try plan(&scheduler)
            counts.append(step.work.map(\.count))
            _ = complete(&scheduler, step)
        }
        #expect(counts == [[10], [1, 12, 3], [1, 1, 1], [1, 1, 1]])
        let error = #expect(throws: SchedulerError.self) { try scheduler.add(request(prompt(17)), id: 3) }
        #expect(error?.code == .tooLong && error?.message.contains("17 tokens") == true)
    }

    @Test func promptsAreFoundByContentUntilTheWeightsChange() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, prefixCaching: true))
        func prefilled(_ id: Int) throws -> Int {
            try scheduler.add(request(prompt(19), maxTokens: 1), id: id)
            let step = try plan(&scheduler)
            let ended = complete(&scheduler, step)
            #expect(ended.count == 1)
            return step.tokens
        }
        #expect(try prefilled(0) == 19)
        #expect(try prefilled(1) == 3)
        #expect(scheduler.statistics.foundTokens == 16)
        scheduler.weightsChanged()
        #expect(try prefilled(2) == 19)
        #expect(try prefilled(3) == 3)
    }

    /// Prompts that arrive together compute what they have in common once.
    @Test func aPrefixIsSharedWithinAStep() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, prefixCaching: true))
        for id in 0..<5 { try scheduler.add(request(prompt(16) + [Int32(id), 2, 3]), id: id) }
        let step = try plan(&scheduler)
        #expect(step.work.map(\.count) == [19, 3, 3, 3, 3])
        #expect(step.work.map(\.start) == [0, 16, 16, 16, 16])
        #expect(Set(step.work.map { Array($0.blocks.prefix(4)) }).count == 1)
    }

    /// What older weights computed is not found, even if more is added to it later.
    @Test func blocksOfMixedWeightsAreNotFound() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, prefixCaching: true))
        try scheduler.add(request(prompt(6), maxTokens: 20), id: 0)
        for count in 0..<13 {
            if count == 1 { scheduler.weightsChanged() }
            let step = try plan(&scheduler)
            _ = complete(&scheduler, step)
        }
        #expect(scheduler.pool.findableCount == 0)
    }

    @Test func aPromptThatFillsItsBlocksStillComputesItsLastToken() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, prefixCaching: true))
        for (id, tokens) in [(0, 16), (1, 4)] {
            try scheduler.add(request(prompt(16), maxTokens: 1), id: id)
            let step = try plan(&scheduler)
            #expect(step.tokens == tokens && step.drawCount == 1)
            _ = complete(&scheduler, step)
        }
    }

    @Test func thoseBehindYieldToTheFirst() throws {
        // Room for both prompts, not for both answers.
        var scheduler = try Scheduler(SchedulerLimits(blocks: 8, blockSize: 4))
        try scheduler.add(request(prompt(8), maxTokens: 16), id: 0, priority: 1)
        try scheduler.add(request(prompt(8, from: 500), maxTokens: 16), id: 1, priority: 0)
        var finished: [FinishedSequence] = []
        while let plan = scheduler.next() {
            finished += complete(&scheduler, plan)
            #expect(scheduler.brokenInvariant() == nil)
        }
        #expect(finished.map(\.request) == [1, 0])
        #expect(finished.allSatisfy { $0.tokens.count == 16 && $0.reason == .length })
        #expect(scheduler.statistics.recomputed == 1)
    }

    @Test func aStepIsPlannedWhileTheOneBeforeRuns() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4))
        try scheduler.add(request(prompt(5), n: 2, maxTokens: 3), id: 0)
        var ended: [FinishedSequence]
        let first = try plan(&scheduler), second = try plan(&scheduler)
        #expect(second.work.map(\.input) == [.drawn(step: 0, draw: 0), .drawn(step: 0, draw: 1)])
        ended = complete(&scheduler, first)
        #expect(ended.isEmpty)
        let third = try plan(&scheduler)
        // Three tokens each are drawn or on their way.
        let fourth = scheduler.next()
        #expect(fourth == nil)
        ended = complete(&scheduler, second)
        #expect(ended.isEmpty)
        ended = complete(&scheduler, third)
        #expect(ended.map(\.tokens) == [[1, 1, 1], [1, 1, 1]])
        #expect(scheduler.isDone && scheduler.pool.freeCount == 100)
    }

    /// A stop that shows only after the next step was planned: that step's token is dropped.
    @Test func aStopDropsWhatWasPlannedAhead() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4))
        var stopping = request(prompt(5), maxTokens: 9)
        stopping.sampling.stopTokenIDs = [7]
        try scheduler.add(stopping, id: 0)
        let first = try plan(&scheduler), second = try plan(&scheduler)
        var ended = complete(&scheduler, first, 7)
        #expect(ended.map(\.tokens) == [[7]])
        #expect(scheduler.pool.freeCount < 100, "a step under way still reads the blocks")
        ended = complete(&scheduler, second, 8)
        #expect(ended.isEmpty)
        #expect(scheduler.pool.freeCount == 100 && scheduler.isDone)
    }

    @Test func abortEndsEverySampleOfARequest() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, runningSequences: 2))
        try scheduler.add(request(prompt(5), n: 3, maxTokens: 9), id: 5)
        let step = try plan(&scheduler)
        _ = complete(&scheduler, step)
        let ended = scheduler.abort(5)
        #expect(Set(ended.map(\.sample)) == [0, 1, 2])
        #expect(ended.allSatisfy { $0.reason == .abort })
        let again = scheduler.abort(5)
        #expect(again.isEmpty)
        #expect(scheduler.isDone && scheduler.pool.freeCount == 100)
    }

    @Test func requestsThatCanNeverRunAreRefused() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 4, blockSize: 4))
        // The last token takes no room.
        try scheduler.add(request(prompt(8), maxTokens: 9), id: 0)
        let tooLong = #expect(throws: SchedulerError.self) {
            try scheduler.add(request(prompt(8), maxTokens: 10), id: 1)
        }
        #expect(tooLong?.code == .tooLong)
        for bad in [request([]), request(prompt(1), n: 0), request(prompt(1), maxTokens: 0)] {
            #expect(throws: SchedulerError.self) { try scheduler.add(bad, id: 2) }
        }
        #expect(throws: SchedulerError.self) { try scheduler.add(request(prompt(1)), id: 0) }
        #expect(throws: SchedulerError.self) {
            _ = try Scheduler(SchedulerLimits(blocks: 4, tokensPerStep: 4, runningSequences: 5))
        }
    }
}

@Suite struct BlockPoolTests {
    @Test func whatCanBeFoundIsTakenLast() throws {
        var pool = BlockPool(capacity: 3)
        let key = PrefixKey.root.next([1, 2])
        let taken = [pool.take(), pool.take()]
        let first = try #require(taken[0]), second = try #require(taken[1])
        pool.register(first, as: key)
        pool.release(first)
        pool.release(second)
        let third = pool.take()
        #expect(third == second && pool.find(key) == first)
        let unused = pool.take()
        #expect(unused != nil && unused != first)
        let last = pool.take(), none = pool.take()
        #expect(last == first && none == nil && pool.find(key) == nil)
    }

    @Test func aFoundBlockIsHeldAgain() throws {
        var pool = BlockPool(capacity: 1)
        let key = PrefixKey.root.next([1])
        let taken = pool.take()
        let block = try #require(taken)
        pool.register(block, as: key)
        pool.release(block)
        pool.hold(block)
        pool.hold(block)
        #expect(pool.freeCount == 0 && pool.holderCount(block) == 2)
        pool.release(block)
        pool.release(block)
        #expect(pool.freeBlocks() == [block])
    }

    @Test func keysDependOnEveryTokenBefore() {
        let keys = [[1, 2], [2, 1], [1], [], [1, 2, 0], [-1]].map { PrefixKey.root.next($0.map(Int32.init)) }
        #expect(Set(keys).count == keys.count)
        #expect(PrefixKey.root.next([1, 2]).next([3]) != PrefixKey.root.next([1, 3]).next([2]))
    }
}
