extension Scheduler {
    /// Gives a running sequence its own room for the tokens up to `end`: new blocks, and a copy of a block that it shares and is
    /// about to write to. The last in order yield until there is enough. False when those that could yield are needed by steps
    /// under way, or all come before it: it keeps what it has and waits.
    mutating func makeRoom(for index: Int32, upTo end: Int, _ plan: inout StepPlan) -> Bool {
        let at = Int(index)
        let held = sequences[at].blocks.count
        let first = sequences[at].computed / limits.blockSize
        let missing = max(0, blocks(for: end) - held)
        while true {
            // Anew each time: those that yield may be the ones it shares with.
            let isShared = first < held && pool.holderCount(sequences[at].blocks[first]) > 1
            if pool.freeCount >= missing + (isShared ? 1 : 0) {
                if isShared, let block = pool.take() {
                    let shared = sequences[at].blocks[first]
                    plan.copies.append(.init(from: shared, to: block))
                    pool.release(shared)
                    sequences[at].blocks[first] = block
                    sequences[at].announced = min(sequences[at].announced, first)
                }
                takeBlocks(missing, for: index)
                return true
            }
            guard letOneYield(after: index, &plan) else { return false }
        }
    }

    /// Blocks that are known to be free.
    mutating func takeBlocks(_ count: Int, for index: Int32) {
        for _ in 0..<count {
            guard let block = pool.take() else { preconditionFailure("a counted block is missing") }
            sequences[Int(index)].blocks.append(block)
        }
    }

    /// Has the last in order after `index` that no step under way needs give up its blocks.
    private mutating func letOneYield(after index: Int32, _ plan: inout StepPlan) -> Bool {
        let rank = sequences[Int(index)].rank
        // While a step is planned, those that could yield only become fewer.
        if let hopeless = plan.hopelessFrom, hopeless <= rank { return false }
        if let last = running.last(where: { sequences[Int($0)].isIdle }), rank < sequences[Int(last)].rank {
            yield(last, &plan)
            return true
        }
        // Blocks that swapped sequences share stayed on the device.
        guard let last = swapped.last, rank < sequences[Int(last)].rank else {
            plan.hopelessFrom = rank
            return false
        }
        dropLastSwapped()
        return true
    }

    /// Has the last swapped sequence compute everything again.
    mutating func dropLastSwapped() {
        guard let index = swapped.popLast() else { return }
        statistics.recomputed += 1
        startOver(index)
    }

    private mutating func startOver(_ index: Int32) {
        let at = Int(index)
        for block in sequences[at].blocks where block >= 0 { pool.release(block) }
        freeHostBlocks += sequences[at].hostBlocks.filter { $0 >= 0 }
        sequences[at].hostBlocks = []
        sequences[at].forgetCache()
        enqueue(index)
    }

    /// Takes a sequence's blocks from it. It comes back at its place in line.
    private mutating func yield(_ index: Int32, _ plan: inout StepPlan) {
        leaveRunning(index)
        if !swapOut(index, &plan) {
            statistics.recomputed += 1
            startOver(index)
        }
    }

    /// What runs may wait for blocks that a swapped sequence before it in line kept on the device, which waits for theirs: the last
    /// in order yield to the first.
    mutating func breakDeadlock(_ plan: inout StepPlan) {
        while plan.isEmpty, let first = swapped.first, let last = running.last,
            sequences[Int(first)].rank < sequences[Int(last)].rank
        {
            yield(last, &plan)
            resumeSwapped(&plan)
        }
    }

    /// Moves the blocks that only this sequence holds to the host; blocks that others hold too stay where they are. False where
    /// the host's are full, or nothing would come free.
    private mutating func swapOut(_ index: Int32, _ plan: inout StepPlan) -> Bool {
        let at = Int(index), blocks = sequences[at].blocks
        let own = blocks.indices.filter { pool.holderCount(blocks[$0]) == 1 }
        guard !own.isEmpty, own.count <= freeHostBlocks.count else { return false }
        var host = [Int32](repeating: -1, count: blocks.count)
        for place in own {
            guard let block = freeHostBlocks.popLast() else { return false }
            host[place] = block
            plan.swapsOut.append(.init(from: blocks[place], to: block))
            pool.release(blocks[place])
            sequences[at].blocks[place] = -1
        }
        sequences[at].hostBlocks = host
        sequences[at].phase = .swapped
        statistics.swappedOut += 1
        insert(index, into: &swapped)
        return true
    }

    /// Gives up every block, on the device and on the host, and all that could be found in them: the cache's memory may go. What
    /// ran goes back to its place in line and is computed again from its tokens. No step may be under way.
    public mutating func dropCache() {
        precondition(!hasStepsUnderWay, "\(planned - completed) steps that use the cache are under way")
        while let index = running.last {
            leaveRunning(index)
            startOver(index)
        }
        while let index = swapped.popLast() { startOver(index) }
        pool.forgetContents()
    }
}
