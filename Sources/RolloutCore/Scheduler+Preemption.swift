extension Scheduler {
    /// Gives a running sequence its own room for the tokens up to `end`: new blocks, and a copy of a block that it shares and is
    /// about to write to. The last in order yield until there is enough. False when those that could yield are needed by steps
    /// under way, or all come before it: it keeps what it has and waits.
    mutating func makeRoom(for index: Int32, upTo end: Int, _ plan: inout StepPlan) -> Bool {
        let held = sequences[Int(index)].blocks.count
        let first = sequences[Int(index)].computed / limits.blockSize
        let missing = max(0, blocks(for: end) - held)
        while true {
            // Anew each time: those that yield may be the ones it shares with.
            let isShared = first < held && pool.holderCount(sequences[Int(index)].blocks[first]) > 1
            if pool.freeCount >= missing + (isShared ? 1 : 0) {
                if isShared, let block = pool.take() {
                    let shared = sequences[Int(index)].blocks[first]
                    plan.copies.append(.init(from: shared, to: block))
                    pool.release(shared)
                    sequences[Int(index)].blocks[first] = block
                }
                for _ in 0..<missing {
                    guard let block = pool.take() else { preconditionFailure("a counted block is missing") }
                    sequences[Int(index)].blocks.append(block)
                }
                return true
            }
            guard letOneYield(after: index, &plan) else { return false }
        }
    }

    /// Has the last in order after `index` that no step under way needs give up its blocks.
    private mutating func letOneYield(after index: Int32, _ plan: inout StepPlan) -> Bool {
        let rank = sequences[Int(index)].rank
        if let last = running.last(where: { sequences[Int($0)].inFlight == 0 && sequences[Int($0)].pending == 0 }),
            rank < sequences[Int(last)].rank
        {
            yield(last, &plan)
            return true
        }
        // Blocks that swapped sequences share stayed on the device.
        guard let last = swapped.last, rank < sequences[Int(last)].rank else { return false }
        dropLastSwapped()
        return true
    }

    /// Has the last swapped sequence compute everything again.
    mutating func dropLastSwapped() {
        guard let index = swapped.popLast() else { return }
        freeHostBlocks += sequences[Int(index)].hostBlocks.filter { $0 >= 0 }
        sequences[Int(index)].hostBlocks = []
        startOver(index)
    }

    private mutating func startOver(_ index: Int32) {
        for block in sequences[Int(index)].blocks where block >= 0 { pool.release(block) }
        sequences[Int(index)].blocks = []
        sequences[Int(index)].computed = 0
        sequences[Int(index)].registered = 0
        sequences[Int(index)].key = .root
        sequences[Int(index)].isMixed = false
        statistics.recomputed += 1
        enqueue(index)
    }

    /// Takes a sequence's blocks from it. It comes back at its place in line.
    private mutating func yield(_ index: Int32, _ plan: inout StepPlan) {
        running.removeAll { $0 == index }
        if !swapOut(index, &plan) { startOver(index) }
    }

    /// Moves the blocks that only this sequence holds to the host; blocks that others hold too stay where they are. False where
    /// the host's are full, or nothing would come free.
    private mutating func swapOut(_ index: Int32, _ plan: inout StepPlan) -> Bool {
        let blocks = sequences[Int(index)].blocks
        let own = blocks.indices.filter { pool.holderCount(blocks[$0]) == 1 }
        guard !own.isEmpty, own.count <= freeHostBlocks.count else { return false }
        var host = [Int32](repeating: -1, count: blocks.count)
        for place in own {
            guard let block = freeHostBlocks.popLast() else { return false }
            host[place] = block
            plan.swapsOut.append(.init(from: blocks[place], to: block))
            pool.release(blocks[place])
            sequences[Int(index)].blocks[place] = -1
        }
        sequences[Int(index)].hostBlocks = host
        sequences[Int(index)].phase = .swapped
        statistics.swappedOut += 1
        insert(index, into: &swapped)
        return true
    }
}
