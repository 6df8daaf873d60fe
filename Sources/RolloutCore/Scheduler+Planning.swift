import HeapModule

extension Scheduler {
    /// Everything that runs, decoding first: one token each; then the prompts under way, in chunks.
    mutating func planRunning(_ plan: inout StepPlan) {
        for isDecoding in [true, false] {
            var place = 0
            // Those behind may yield, and samples fork off to places behind; nothing moves before `place`.
            while place < running.count, plan.tokens < limits.tokensPerStep {
                let index = running[place]
                place += 1
                let sequence = sequences[Int(index)]
                let left = sequence.length - sequence.computed
                guard left > 0, (left == 1) == isDecoding, sequence.lastStep < plan.step, !reachesEnd(sequence)
                else { continue }
                let count = min(left, limits.tokensPerStep - plan.tokens, limits.prefillChunk)
                if makeRoom(for: index, upTo: sequence.computed + count, &plan) { schedule(index, count, &plan) }
            }
        }
    }

    /// Whether the tokens drawn, if none is a stop, are all it may have.
    private func reachesEnd(_ sequence: ScheduledSequence) -> Bool {
        guard let sampling = requests[sequence.request]?.sampling else { return true }
        return sequence.length - sequence.promptCount >= sampling.maxTokens
    }

    /// Brings swapped sequences back, in order, while there is room and budget.
    mutating func resumeSwapped(_ plan: inout StepPlan) {
        while let index = swapped.first, running.count < limits.runningSequences, plan.tokens < limits.tokensPerStep {
            let sequence = sequences[Int(index)]
            let away = sequence.hostBlocks.filter { $0 >= 0 }.count
            let needed = away + blocks(for: sequence.length) - sequence.blocks.count
            // Alone, it can have what those after it in line still hold.
            while running.isEmpty, pool.freeCount < needed, swapped.count > 1 { dropLastSwapped() }
            guard pool.freeCount >= needed + (running.isEmpty ? 0 : 1) else { return }
            swapped.removeFirst()
            for place in sequence.blocks.indices where sequence.hostBlocks[place] >= 0 {
                guard let block = pool.take() else { preconditionFailure("a counted block is missing") }
                plan.swapsIn.append(.init(from: sequence.hostBlocks[place], to: block))
                freeHostBlocks.append(sequence.hostBlocks[place])
                sequences[Int(index)].blocks[place] = block
            }
            sequences[Int(index)].hostBlocks = []
            sequences[Int(index)].phase = .running
            statistics.swappedIn += 1
            insert(index, into: &running)
            let left = sequence.length - sequence.computed
            let count = min(left, limits.tokensPerStep - plan.tokens, limits.prefillChunk)
            if makeRoom(for: index, upTo: sequence.length, &plan) { schedule(index, count, &plan) }
        }
    }

    /// Admits from the line while rows, blocks and budget last; never past one that does not fit.
    mutating func admitWaiting(_ plan: inout StepPlan) {
        guard swapped.isEmpty else { return }
        while let first = waiting.min, running.count < limits.runningSequences, plan.tokens < limits.tokensPerStep {
            guard sequences[Int(first.index)].generation == first.generation,
                sequences[Int(first.index)].phase == .waiting
            else {
                waiting.removeMin()
                continue
            }
            // It yielded while a step that draws for it was under way: its tokens must be known first.
            let index = first.index
            guard sequences[Int(index)].pending == 0 else { return }
            let shared = sharedBlocks(index)
            let sequence = sequences[Int(index)]
            let found = shared.blocks.count * limits.blockSize
            let free = pool.freeCount - shared.blocks.filter { pool.holderCount($0) == 0 }.count
            // Room for all of it, and one to go on with unless it has the pool to itself.
            let needed = blocks(for: sequence.length) - shared.blocks.count
            guard free >= needed + (running.isEmpty ? 0 : 1) else { return }
            waiting.removeMin()
            for block in shared.blocks { pool.hold(block) }
            sequences[Int(index)].blocks = shared.blocks
            sequences[Int(index)].computed = found
            sequences[Int(index)].registered = shared.isRegistered ? shared.blocks.count : 0
            sequences[Int(index)].key = shared.isRegistered ? shared.key : .root
            sequences[Int(index)].isMixed = shared.isMixed
            sequences[Int(index)].phase = .running
            statistics.foundTokens += found
            insert(index, into: &running)
            let count = min(sequence.length - found, limits.tokensPerStep - plan.tokens, limits.prefillChunk)
            guard makeRoom(for: index, upTo: sequence.length, &plan) else {
                preconditionFailure("a counted block is missing")
            }
            schedule(index, count, &plan)
        }
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
        guard found.count < own, let members = requests[sequence.request]?.members else {
            return (found, key, true, false)
        }
        // Another sample that has the whole prompt lends its blocks; a step under way that computes it comes before ours.
        for member in members where member != index {
            let other = sequences[Int(member)]
            guard other.phase == .running, other.computed >= own * size else { continue }
            return (Array(other.blocks.prefix(own)), .root, false, other.isMixed)
        }
        return (found, key, true, false)
    }

    /// Adds a sequence's next tokens to the plan; its blocks are there.
    private mutating func schedule(_ index: Int32, _ count: Int, _ plan: inout StepPlan) {
        let sequence = sequences[Int(index)]
        let end = sequence.computed + count
        var work = StepPlan.Work(
            sequence: id(index), start: sequence.computed, count: count,
            input: sequence.pending > 0 ? .drawn(step: sequence.newest.step, draw: sequence.newest.draw) : .known,
            blocks: Array(sequence.blocks.prefix(blocks(for: end))), draws: [])
        sequences[Int(index)].computed = end
        sequences[Int(index)].inFlight += 1
        sequences[Int(index)].lastStep = plan.step
        registerBlocks(index)
        if end == sequence.length {
            var drawing = [index]
            if sequence.forksWaiting > 0 { drawing += fork(index) }
            for member in drawing {
                let state = sequences[Int(member)]
                work.draws.append(
                    .init(
                        sequence: id(member), request: state.request, sample: state.sample,
                        position: state.length - state.promptCount))
                sequences[Int(member)].pending += 1
                sequences[Int(member)].newest = (plan.step, plan.drawCount)
                sequences[Int(member)].lastStep = plan.step
                plan.drawCount += 1
            }
        }
        plan.tokens += count
        plan.work.append(work)
    }

    /// The prompt is computed: its other samples hold its blocks too and go on by themselves. Those for which no row is left
    /// wait in line and compute or find the prompt again.
    private mutating func fork(_ index: Int32) -> [Int32] {
        let parent = sequences[Int(index)]
        var drawing: [Int32] = []
        guard let count = requests[parent.request]?.sampling.n else { return [] }
        for sample in count - parent.forksWaiting..<count {
            let child = makeSequence()
            var state = parent
            state.generation = sequences[Int(child)].generation
            state.sample = sample
            state.forksWaiting = 0
            state.inFlight = 0
            requests[parent.request]?.members.append(child)
            if running.count < limits.runningSequences {
                for block in parent.blocks { pool.hold(block) }
                sequences[Int(child)] = state
                insert(child, into: &running)
                drawing.append(child)
            } else {
                state.blocks = []
                state.computed = 0
                state.registered = 0
                state.key = .root
                state.isMixed = false
                sequences[Int(child)] = state
                enqueue(child)
            }
        }
        sequences[Int(index)].forksWaiting = 0
        return drawing
    }
}
