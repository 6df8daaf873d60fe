import Testing

@testable import RolloutCore

@Suite struct SpeculationTests {
    /// A sequence that has said 1 2 3 4 and is at 1 2 again, all but its last token in the cache.
    private func scheduler(
        blocks: Int = 100, tokensPerStep: Int = 64, maxTokens: Int = 20, caching: Bool = false,
        stops: Set<Int32> = [], drafts: Int = 4
    ) throws -> Scheduler {
        var scheduler = try Scheduler(
            SchedulerLimits(
                blocks: blocks, blockSize: 4, tokensPerStep: tokensPerStep, runningSequences: 4,
                prefixCaching: caching, speculation: Speculation(maxDraft: drafts, minNgram: 2, maxNgram: 3)))
        let sampling = SamplingParameters(maxTokens: maxTokens, stopTokenIDs: stops)
        try scheduler.add(RolloutRequest(prompt: [9, 1, 2, 3, 4, 8, 1], sampling: sampling), id: 0)
        _ = try step(&scheduler, [2])
        return scheduler
    }

    private func step(_ scheduler: inout Scheduler, _ tokens: [Int32]) throws -> [FinishedSequence] {
        let next = scheduler.next()
        let plan = try #require(next)
        let ended = scheduler.complete(plan, tokens.map { DrawOutcome(token: $0) })
        #expect(scheduler.brokenInvariant() == nil)
        return ended
    }

    @Test func whatWasSaidBeforeIsDraftedAndTakenAsFarAsItIsDrawn() throws {
        var scheduler = try scheduler()
        var next = scheduler.next()
        var plan = try #require(next)
        #expect(plan.work.map(\.drafts) == [[3, 4, 8, 1]] && plan.work[0].count == 5 && plan.work[0].start == 7)
        #expect(plan.draws.map(\.position) == [1, 2, 3, 4, 5] && plan.draws.map(\.offset) == [0, 1, 2, 3, 4])
        #expect(plan.work[0].blocks.count == 3)
        // The third guess is wrong; the token drawn in its place is taken, what was drawn behind it is not.
        let drawn: [Int32] = [3, 4, 7, 1, 2]
        #expect(plan.work[0].acceptedDraws { drawn[$0] } == 3)
        let ended = scheduler.complete(plan, drawn.map { DrawOutcome(token: $0, finish: $0 == 1 ? .stop : nil) })
        #expect(ended.isEmpty && scheduler.brokenInvariant() == nil)
        #expect(scheduler.tokens(of: plan.work[0].sequence).dropFirst(7) == [2, 3, 4, 7])
        #expect(scheduler.statistics.drafted == 4 && scheduler.statistics.accepted == 2)
        next = scheduler.next()
        plan = try #require(next)
        #expect(plan.work[0].start == 10 && plan.work[0].drafts.isEmpty && plan.draws.map(\.position) == [4])
    }

    @Test func aStopWithinTheAcceptedRunEndsIt() throws {
        var scheduler = try scheduler(stops: [4])
        let ended = try step(&scheduler, [3, 4, 8, 1, 5])
        #expect(ended.map(\.tokens) == [[2, 3, 4]] && ended.map(\.reason) == [.stop])
        #expect(scheduler.isDone && scheduler.pool.freeCount == 100)
        #expect(scheduler.statistics.accepted == 1)
    }

    @Test func noMoreIsDraftedThanMayBeSaid() throws {
        var scheduler = try scheduler(maxTokens: 4)
        let ended = try step(&scheduler, [3, 4, 8])
        #expect(ended.map(\.tokens) == [[2, 3, 4, 8]] && ended.map(\.reason) == [.length])
        #expect(scheduler.statistics.drafted == 2)
    }

    @Test func draftsTakeWhatTheStepHasLeft() throws {
        // Seven tokens fit: one of ours, four of the other's prompt.
        var scheduler = try scheduler(tokensPerStep: 7)
        try scheduler.add(
            RolloutRequest(prompt: [5, 6, 7, 8], sampling: SamplingParameters(maxTokens: 5)), id: 1)
        let next = scheduler.next()
        let plan = try #require(next)
        #expect(plan.tokens == 7 && plan.work.map(\.drafts) == [[], [3, 4]])
    }

    @Test func draftsLeaveABlockForEachThatRuns() throws {
        // Two blocks hold eight tokens; one of the two that are free is left.
        for (blocks, drafted) in [(3, 0), (4, 4)] {
            var scheduler = try scheduler(blocks: blocks, maxTokens: 5)
            let next = scheduler.next()
            let plan = try #require(next)
            #expect(plan.work[0].drafts.count == min(drafted, 3))
        }
    }

    /// The token that the next step begins with shows when this step is complete; others are planned ahead meanwhile.
    @Test func whoDraftsWaitsForItsStep() throws {
        var scheduler = try scheduler()
        try scheduler.add(
            RolloutRequest(prompt: [5, 6], sampling: SamplingParameters(maxTokens: 5)), id: 1, speculates: false)
        let first = scheduler.next(), second = scheduler.next()
        #expect(first?.work.count == 2)
        #expect(second?.draws.map(\.request) == [1] && second?.work[0].input == .drawn(step: 1, draw: 0))
    }

    @Test func aRequestMayStayOutOfIt() throws {
        var scheduler = try Scheduler(SchedulerLimits(blocks: 100, blockSize: 4, speculation: Speculation()))
        try scheduler.add(
            RolloutRequest(prompt: [1, 2, 1, 2, 1, 2], sampling: SamplingParameters(maxTokens: 9)), id: 0,
            speculates: false)
        while !scheduler.isDone { _ = try step(&scheduler, [Int32(1 + scheduler.statistics.steps % 2)]) }
        #expect(scheduler.statistics.drafted == 0)
    }

    /// Drafts fill the second block, the third of them is wrong: it is found by what was said, not by what was guessed.
    @Test func aBlockThatHoldsRejectedTokensIsNotFound() throws {
        var scheduler = try scheduler(caching: true)
        let text: [Int32] = [9, 1, 2, 3, 4, 8, 1, 2, 3, 4, 7, 5]
        let key = PrefixKey.root.next(text[0..<4]).next(text[4..<8])
        let next = scheduler.next()
        let plan = try #require(next)
        #expect(plan.work[0].drafts == [3, 4, 8, 1] && scheduler.pool.find(key) == plan.work[0].blocks[1])
        _ = scheduler.complete(plan, [3, 4, 7, 1, 2].map { DrawOutcome(token: $0) })
        #expect(scheduler.pool.findableCount == 2)
        _ = try step(&scheduler, [5])
        _ = try step(&scheduler, [6])
        let guessed = key.next([3, 4, 8, 1]), said = key.next(text[8..<12])
        #expect(scheduler.pool.find(guessed) == nil && scheduler.pool.find(said) != nil)
    }

    @Test func draftsThatCannotBeAreRefused() {
        for bad in [
            Speculation(maxDraft: 0), Speculation(minNgram: 0), Speculation(minNgram: 3, maxNgram: 2),
            Speculation(minNgram: 1, maxNgram: 0),
        ] {
            let error = #expect(throws: SchedulerError.self) {
                _ = try Scheduler(SchedulerLimits(blocks: 4, runningSequences: 4, speculation: bad))
            }
            #expect(error?.code == .badLimits)
        }
    }
}

@Suite struct DraftLookupTests {
    /// Word for word: the longest n-gram that ends here and occurred before, where it did last.
    private func reference(_ text: [Int32], _ speculation: Speculation, _ most: Int) -> [Int32] {
        for n in (speculation.minNgram...speculation.maxNgram).reversed() where n < text.count {
            for end in (n..<text.count).reversed() where text[end - n..<end] == text.suffix(n) {
                var longer = text
                for place in end..<end + most { longer.append(longer[place]) }
                return Array(longer.suffix(most))
            }
        }
        return []
    }

    @Test(arguments: 0..<60) func draftsAreThoseOfAPlainSearch(seed: Int) {
        var random = Random(state: UInt64(seed) &* 0x9E37_79B9_7F4A_7C15)
        let shortest = random.int(1...3), most = random.int(1...9)
        let speculation = Speculation(maxDraft: most, minNgram: shortest, maxNgram: shortest + random.int(0...3))
        let kinds = random.element([2, 5, 40])
        var lookup = DraftLookup(speculation), text: [Int32] = [], found = 0
        for _ in 0..<random.int(1...60) {
            // Negative ids too: any 32 bits are a token.
            for _ in 0..<random.int(0...5) { text.append(Int32(random.int(0...kinds) - 1)) }
            let draft = lookup.draft(after: text, atMost: most)
            #expect(draft == reference(text, speculation, most))
            found += draft.isEmpty ? 0 : 1
        }
        #expect(kinds > 5 || text.count < 60 || found > 0)
    }

    @Test func whatRunsIntoItsEndGoesOnWithItself() {
        var lookup = DraftLookup(Speculation(maxDraft: 7, minNgram: 2, maxNgram: 3))
        #expect(lookup.draft(after: [5, 6, 7, 5, 6], atMost: 7) == [7, 5, 6, 7, 5, 6, 7])
        #expect(lookup.draft(after: [5, 6, 7, 5, 6, 6, 6, 6], atMost: 2) == [6, 6])
        #expect(lookup.draft(after: [5, 6, 7, 5, 6, 6, 6, 6, 9], atMost: 2) == [])
    }
}
