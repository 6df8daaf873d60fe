extension Scheduler {
    /// The next step; nil when nothing can be computed before a step under way is complete, or nothing is left.
    public mutating func next() -> StepPlan? {
        var plan = StepPlan(step: planned)
        plan.work.reserveCapacity(running.count)
        plan.draws.reserveCapacity(running.count)
        let yields = statistics.yields
        var drafting: [Int32] = []
        planRunning(&plan, &drafting)
        // What had to yield just now would only come back to yield again.
        if statistics.yields == yields {
            resumeSwapped(&plan)
            admitWaiting(&plan)
        }
        if !drafting.isEmpty { planDrafts(drafting, &plan) }
        if plan.isEmpty, !hasStepsUnderWay { breakDeadlock(&plan) }
        guard !plan.isEmpty else { return nil }
        planned += 1
        statistics.steps += 1
        statistics.tokens += plan.tokens
        return plan
    }

    /// Takes a step's drawn tokens, in the order of the plan's draws; steps complete in the order they were planned. Of draws
    /// behind a draft that was not drawn, nothing is taken.
    public mutating func complete(_ plan: StepPlan, _ outcomes: [DrawOutcome]) -> [FinishedSequence] {
        precondition(plan.step == completed && completed < planned, "step \(plan.step) is not the first under way")
        precondition(outcomes.count == plan.drawCount, "\(outcomes.count) tokens for \(plan.drawCount) draws")
        completed += 1
        var ended: [FinishedSequence] = []
        for place in plan.work.indices {
            let index = plan.work[place].sequence.index
            sequences[Int(index)].inFlight -= 1
            if plan.work[place].drafts.isEmpty {
                // Tokens that were not known when this step was planned; before the new ones, as what ends here can still be
                // found.
                registerBlocks(index)
                for draw in plan.work[place].draws { take(outcomes[draw], for: plan.draws[draw].sequence, &ended) }
            } else {
                takeDrafted(plan.work[place], outcomes, &ended)
            }
            // Ended while this step was under way.
            if sequences[Int(index)].phase == .finished, sequences[Int(index)].inFlight == 0 { retire(index) }
        }
        return ended
    }

    private mutating func take(
        _ outcome: DrawOutcome, for sequence: SequenceID, _ ended: inout [FinishedSequence]
    ) {
        let index = Int(sequence.index)
        guard sequences[index].generation == sequence.generation else { return }
        sequences[index].pending -= 1
        guard sequences[index].phase != .finished else { return }
        if let reason = append(outcome, to: index) { finish(sequence.index, reason, &ended) }
    }

    /// Gives a sequence its next token; why it ends with it, if it does.
    mutating func append(_ outcome: DrawOutcome, to index: Int) -> FinishReason? {
        sequences[index].tokens.append(outcome.token)
        let length = sequences[index].tokens.count
        if let reason = outcome.finish { return reason }
        if requests[sequences[index].request].isStop(outcome.token, atLength: length) { return .stop }
        return length >= sequences[index].maxLength ? .length : nil
    }

    // MARK: - Ends

    /// Ends a sequence, and those that were to fork off it. A step under way keeps its blocks until it is complete.
    mutating func finish(_ index: Int32, _ reason: FinishReason, _ ended: inout [FinishedSequence]) {
        let at = Int(index), request = sequences[at].request
        let phase = sequences[at].phase, forks = sequences[at].forksWaiting
        guard phase != .finished, phase != .free else { return }
        let id = requests[request].id
        ended.append(
            FinishedSequence(
                request: id, sample: sequences[at].sample,
                tokens: Array(sequences[at].tokens.dropFirst(sequences[at].promptCount)), reason: reason))
        for sample in requests[request].n - forks..<requests[request].n {
            ended.append(FinishedSequence(request: id, sample: sample, tokens: [], reason: reason))
        }
        sequences[at].forksWaiting = 0
        switch phase {
        case .running: leaveRunning(index)
        case .swapped:
            swapped.remove(at: place(of: index, in: swapped))
            freeHostBlocks += sequences[at].hostBlocks.filter { $0 >= 0 }
            sequences[at].hostBlocks = []
        case .waiting, .finished, .free: break
        }
        sequences[at].phase = .finished
        endSamples(of: index, forks + 1)
        if sequences[at].inFlight == 0 { retire(index) }
    }

    private mutating func retire(_ index: Int32) {
        for block in sequences[Int(index)].blocks where block >= 0 { pool.release(block) }
        let generation = sequences[Int(index)].generation
        sequences[Int(index)] = ScheduledSequence()
        sequences[Int(index)].generation = generation &+ 1
        freeIndices.append(index)
    }

    // MARK: - Contents

    /// Makes a sequence's full blocks findable whose tokens are known and computed, or will be by a planned step: a step writes the
    /// keys and values of all its tokens in a layer before any of them attends there.
    mutating func registerBlocks(_ index: Int32) {
        guard limits.prefixCaching else { return }
        let at = Int(index), size = limits.blockSize
        guard !sequences[at].isMixed, sequences[at].phase == .running else { return }
        let full = min(sequences[at].computed, sequences[at].tokens.count) / size
        guard full > sequences[at].registered else { return }
        var key = sequences[at].key
        for block in sequences[at].registered..<full {
            key = key.next(sequences[at].tokens[block * size..<(block + 1) * size])
            pool.register(sequences[at].blocks[block], as: key)
        }
        sequences[at].registered = full
        sequences[at].key = key
    }
}
