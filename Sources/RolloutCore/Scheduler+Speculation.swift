extension Scheduler {
    /// Keeps room in the step for the one token of a sequence that may draft more, once the rest of the step is known.
    mutating func setAside(_ index: Int32, _ plan: inout StepPlan) {
        sequences[Int(index)].lastStep = plan.step
        // Nobody may make it yield.
        sequences[Int(index)].inFlight += 1
        plan.tokens += 1
    }

    /// Schedules those set aside, each with the drafts that budget and blocks are left for. Drafts take no block that a running
    /// sequence may want for its next token.
    mutating func planDrafts(_ drafting: [Int32], _ plan: inout StepPlan) {
        guard let speculation = limits.speculation else { return }
        let size = limits.blockSize
        for index in drafting {
            let at = Int(index), next = sequences[at].computed + 1
            let spare = max(0, pool.freeCount - running.count)
            let most = min(
                speculation.maxDraft, limits.tokensPerStep - plan.tokens,
                // One more is drawn than is guessed.
                sequences[at].maxLength - sequences[at].length - 1,
                (sequences[at].blocks.count + spare) * size - next)
            var draft: [Int32] = []
            // Samples fork off with one token each.
            if most > 0, sequences[at].forksWaiting == 0 {
                let tokens = sequences[at].tokens
                draft = sequences[at].lookup?.draft(after: tokens, atMost: most) ?? []
            }
            takeBlocks(max(0, blocks(for: next + draft.count) - sequences[at].blocks.count), for: index)
            sequences[at].inFlight -= 1
            plan.tokens -= 1
            statistics.drafted += draft.count
            schedule(index, 1 + draft.count, drafts: draft, &plan)
        }
    }

    /// Takes the draws that follow right drafts, and the first that does not. What was computed for the rest is forgotten.
    mutating func takeDrafted(
        _ work: StepPlan.Work, _ outcomes: [DrawOutcome], _ ended: inout [FinishedSequence]
    ) {
        let at = Int(work.sequence.index)
        sequences[at].pending -= work.draws.count
        guard sequences[at].phase != .finished else { return }
        var reason: FinishReason?, taken = 0
        for draw in work.draws.prefix(work.acceptedDraws { outcomes[$0].token }) {
            reason = append(outcomes[draw], to: at)
            taken += 1
            if reason != nil { break }
        }
        statistics.accepted += taken - 1
        sequences[at].computed = work.start + taken
        let needed = blocks(for: sequences[at].computed)
        while sequences[at].blocks.count > needed, let block = sequences[at].blocks.popLast() { pool.release(block) }
        sequences[at].announced = min(sequences[at].announced, needed)
        registerBlocks(work.sequence.index)
        if let reason { finish(work.sequence.index, reason, &ended) }
    }
}
