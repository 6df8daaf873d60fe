import HeapModule

extension Scheduler {
    /// Everything that runs, decoding first: one token each; then the prompts under way, in chunks. Those that may draft are
    /// set aside with room for their one token.
    mutating func planRunning(_ plan: inout StepPlan, _ drafting: inout [Int32]) {
        guard planRunning(decoding: true, &plan, &drafting) else { return }
        _ = planRunning(decoding: false, &plan, &drafting)
    }

    /// Whether it met a sequence that may go on but is of the other kind.
    private mutating func planRunning(
        decoding: Bool, _ plan: inout StepPlan, _ drafting: inout [Int32]
    ) -> Bool {
        var place = 0, metOthers = false
        // Those behind may yield, and samples fork off to places behind; nothing moves before `place`.
        while place < running.count, plan.tokens < limits.tokensPerStep {
            let index = running[place], at = Int(index)
            place += 1
            let length = sequences[at].length, computed = sequences[at].computed
            let left = length - computed
            // The tokens drawn, if none is a stop, may be all that it may have.
            guard left > 0, sequences[at].lastStep < plan.step, length < sequences[at].maxLength else { continue }
            guard (left == 1) == decoding else {
                metOthers = true
                continue
            }
            let drafts = decoding && sequences[at].lookup != nil
            // What it may draft shows when its last token is known.
            if drafts, sequences[at].pending > 0 { continue }
            let count = share(of: left, index, plan)
            guard count > 0, makeRoom(for: index, upTo: computed + count, &plan) else { continue }
            if drafts {
                setAside(index, &plan)
                drafting.append(index)
            } else {
                schedule(index, count, &plan)
            }
        }
        return metOthers
    }

    /// Brings swapped sequences back, in order, while there is room and budget.
    mutating func resumeSwapped(_ plan: inout StepPlan) {
        while let index = swapped.first, running.count < limits.runningSequences, plan.tokens < limits.tokensPerStep {
            let at = Int(index), length = sequences[at].length
            let away = sequences[at].hostBlocks.count { $0 >= 0 }
            let needed = away + blocks(for: length) - sequences[at].blocks.count
            // Alone, it can have what those after it in line still hold.
            while running.isEmpty, pool.freeCount < needed, swapped.count > 1 { dropLastSwapped() }
            guard pool.freeCount >= needed + (running.isEmpty ? 0 : 1) else { return }
            swapped.removeFirst()
            let host = sequences[at].hostBlocks
            for place in host.indices where host[place] >= 0 {
                guard let block = pool.take() else { preconditionFailure("a counted block is missing") }
                plan.swapsIn.append(.init(from: host[place], to: block))
                freeHostBlocks.append(host[place])
                sequences[at].blocks[place] = block
            }
            sequences[at].hostBlocks = []
            statistics.swappedIn += 1
            enterRunning(index)
            let count = share(of: length - sequences[at].computed, index, plan)
            if count > 0, makeRoom(for: index, upTo: length, &plan) { schedule(index, count, &plan) }
        }
    }

    /// Admits from the line while rows, blocks and budget last; never past one that does not fit.
    mutating func admitWaiting(_ plan: inout StepPlan) {
        guard swapped.isEmpty else { return }
        while let first = waiting.min, running.count < limits.runningSequences, plan.tokens < limits.tokensPerStep {
            let index = first.index, at = Int(index)
            guard sequences[at].generation == first.generation, sequences[at].phase == .waiting else {
                waiting.removeMin()
                continue
            }
            // It yielded while a step that draws for it was under way: its tokens must be known first.
            guard sequences[at].pending == 0 else { return }
            // Whatever it finds, its last token needs a block.
            guard pool.freeCount >= (running.isEmpty ? 1 : 2) else { return }
            let length = sequences[at].length
            let shared = sharedBlocks(index)
            let found = shared.blocks.count * limits.blockSize
            let free = pool.freeCount - shared.blocks.count { pool.holderCount($0) == 0 }
            // Room for all of it, and one to go on with unless it has the pool to itself.
            let needed = blocks(for: length) - shared.blocks.count
            guard free >= needed + (running.isEmpty ? 0 : 1) else { return }
            let count = share(of: length - found, index, plan)
            guard count > 0 else { return }
            waiting.removeMin()
            for block in shared.blocks { pool.hold(block) }
            sequences[at].blocks = shared.blocks
            sequences[at].computed = found
            sequences[at].registered = shared.isRegistered ? shared.blocks.count : 0
            sequences[at].key = shared.isRegistered ? shared.key : .root
            sequences[at].isMixed = shared.isMixed
            statistics.foundTokens += found
            enterRunning(index)
            guard makeRoom(for: index, upTo: length, &plan) else {
                preconditionFailure("a counted block is missing")
            }
            schedule(index, count, &plan)
        }
    }

    /// How many of the `left` tokens of a sequence the step computes; 0 where they are not to be cut and the step is too full.
    private func share(of left: Int, _ index: Int32, _ plan: StepPlan) -> Int {
        let room = limits.tokensPerStep - plan.tokens
        // What is longer than a step has to be cut, to the end: were its rest to wait for room, others might go before it.
        guard limits.cutsPrompts || sequences[Int(index)].length > limits.tokensPerStep else {
            return left <= room ? left : 0
        }
        return min(left, room, limits.cutsPrompts ? limits.prefillChunk : .max)
    }

    /// Blocks that hold the beginning of a waiting sequence: found by content, or held by a sample of the same prompt.
    private func sharedBlocks(_ index: Int32) -> (blocks: [Int32], key: PrefixKey, isRegistered: Bool, isMixed: Bool) {
        let sequence = sequences[Int(index)], size = limits.blockSize
        // The last token is computed in any case: its logits are wanted.
        let most = (sequence.tokens.count - 1) / size
        var found: [Int32] = [], key = PrefixKey.root
        if limits.prefixCaching {
            while found.count < most {
                let next = key.next(sequence.tokens[found.count * size..<(found.count + 1) * size])
                guard let block = pool.find(next) else { break }
                found.append(block)
                key = next
            }
        }
        let own = (sequence.promptCount - 1) / size
        guard found.count < own else { return (found, key, true, false) }
        // Another sample that has the whole prompt lends its blocks; a step under way that computes it comes before ours.
        for member in requests[sequence.request].members where member != index {
            let other = Int(member)
            guard sequences[other].phase == .running, sequences[other].computed >= own * size else { continue }
            return (Array(sequences[other].blocks.prefix(own)), .root, false, sequences[other].isMixed)
        }
        return (found, key, true, false)
    }

    /// Adds a sequence's next tokens to the plan, the last of them `drafts`; its blocks are there.
    mutating func schedule(_ index: Int32, _ count: Int, drafts: [Int32] = [], _ plan: inout StepPlan) {
        let at = Int(index), start = sequences[at].computed, end = start + count
        let input: StepPlan.Input =
            sequences[at].pending > 0
            ? .drawn(step: sequences[at].newest.step, draw: sequences[at].newest.draw) : .known
        sequences[at].computed = end
        sequences[at].inFlight += 1
        sequences[at].lastStep = plan.step
        registerBlocks(index)
        let firstDraw = plan.draws.count
        if end - drafts.count == sequences[at].length {
            for offset in count - 1 - drafts.count..<count { draw(index, offset, &plan) }
            if sequences[at].forksWaiting > 0 { fork(index, offset: count - 1, &plan) }
        }
        let held = blocks(for: end)
        plan.tokens += count
        plan.work.append(
            StepPlan.Work(
                sequence: id(index), row: sequences[at].row, start: start, count: count, input: input, drafts: drafts,
                blocks: sequences[at].blocks[..<held], firstChangedBlock: min(sequences[at].announced, held),
                draws: firstDraw..<plan.draws.count))
        sequences[at].announced = held
    }

    private mutating func draw(_ index: Int32, _ offset: Int, _ plan: inout StepPlan) {
        let at = Int(index)
        sequences[at].newest = (plan.step, plan.draws.count)
        plan.draws.append(
            StepPlan.Draw(
                sequence: id(index), row: sequences[at].row, request: requests[sequences[at].request].id,
                sample: sequences[at].sample, position: sequences[at].length - sequences[at].promptCount,
                offset: offset))
        sequences[at].pending += 1
    }

    /// The prompt is computed: its other samples hold its blocks too and go on by themselves. Those for which no row is left
    /// wait in line and compute or find the prompt again.
    private mutating func fork(_ index: Int32, offset: Int, _ plan: inout StepPlan) {
        // They begin with what it learns of the prompt.
        let prompt = sequences[Int(index)].tokens
        sequences[Int(index)].lookup?.learn(prompt)
        var sibling = sequences[Int(index)]
        let count = requests[sibling.request].n
        let samples = count - sibling.forksWaiting..<count
        sequences[Int(index)].forksWaiting = 0
        sibling.forksWaiting = 0
        sibling.inFlight = 0
        // What was drawn just now is the first sample's.
        sibling.pending = 0
        for sample in samples {
            let child = makeSequence(), at = Int(child)
            sibling.generation = sequences[at].generation
            sibling.sample = sample
            sequences[at] = sibling
            requests[sibling.request].members.append(child)
            if running.count < limits.runningSequences {
                for block in sibling.blocks { pool.hold(block) }
                enterRunning(child)
                draw(child, offset, &plan)
            } else {
                sequences[at].row = -1
                sequences[at].forgetCache()
                enqueue(child)
            }
        }
    }
}
