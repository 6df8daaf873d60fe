extension Scheduler {
    /// What is wrong with the books, if anything: blocks held by nobody, or counted twice. For tests; walks everything.
    public func brokenInvariant() -> String? {
        var holders = [Int](repeating: 0, count: limits.blocks)
        var hostHolders = [Int32: Int]()
        for (index, sequence) in sequences.enumerated() where sequence.phase != .free {
            for block in sequence.blocks where block >= 0 { holders[Int(block)] += 1 }
            for block in sequence.hostBlocks where block >= 0 { hostHolders[block, default: 0] += 1 }
            if sequence.phase == .running, sequence.blocks.contains(-1) {
                return "sequence \(index) runs without a block"
            }
            if sequence.phase == .waiting, !sequence.blocks.isEmpty { return "sequence \(index) waits with blocks" }
            if sequence.phase != .finished, sequence.computed > sequence.length {
                return "sequence \(index) has computed \(sequence.computed) of \(sequence.length) tokens"
            }
            if sequence.phase == .running, blocks(for: sequence.computed) > sequence.blocks.count {
                return "sequence \(index) has \(sequence.computed) tokens in \(sequence.blocks.count) blocks"
            }
            if sequence.phase != .finished, !requests[sequence.request].members.contains(Int32(index)) {
                return "sequence \(index) is not a member of its request"
            }
        }
        for block in 0..<limits.blocks where holders[block] != pool.holderCount(Int32(block)) {
            return "block \(block) has \(holders[block]) holders, the pool counts \(pool.holderCount(Int32(block)))"
        }
        let free = pool.freeBlocks()
        if free.count != pool.freeCount || Set(free).count != free.count
            || free.contains(where: { holders[Int($0)] > 0 })
        {
            return "the free blocks are \(free), counted \(pool.freeCount)"
        }
        if hostHolders.values.contains(where: { $0 > 1 }) { return "a host block is held twice" }
        if case .swap(let count) = limits.preemption, hostHolders.count + freeHostBlocks.count != count {
            return "\(hostHolders.count) host blocks are held and \(freeHostBlocks.count) free, of \(count)"
        }
        if running.count > runningCeiling { return "\(running.count) sequences run" }
        let rows = Set(running.map { sequences[Int($0)].row })
        if rows.count != running.count || rows.contains(where: { $0 < 0 || $0 >= rowCount }) {
            return "\(running.count) sequences run in the rows \(rows.sorted())"
        }
        let left = requests.reduce(0) { $0 + $1.samplesLeft }
        if left != running.count + swapped.count + waitingCount { return "\(left) samples are left" }
        for line in [running, swapped] {
            for (one, two) in zip(line, line.dropFirst()) where sequences[Int(one)].rank >= sequences[Int(two)].rank {
                return "the line is out of order"
            }
        }
        return nil
    }
}
