/// Merges the symbols of one word in the order of their ranks, leftmost first among equals.
struct WordMerger {
    private(set) var ids: [Int32] = []
    private(set) var ends: [Int32] = []
    private var merges: [PairTable.Merge] = []
    private var next: [Int32] = []
    private var previous: [Int32] = []
    private var heap: [UInt64] = []

    /// Below this many symbols, looking through all pairs each time is faster than keeping a heap.
    static let linearLimit = 40

    mutating func reset() {
        ids.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
    }

    @inline(__always) mutating func append(_ id: Int32, end: Int32) {
        ids.append(id)
        ends.append(end)
    }

    mutating func merge(_ table: PairTable) {
        if ids.count < 2 { return }
        if ids.count <= Self.linearLimit { mergeLinearly(table) } else { mergeByHeap(table) }
    }

    private mutating func mergeLinearly(_ table: PairTable) {
        merges.removeAll(keepingCapacity: true)
        for index in 0..<ids.count - 1 { merges.append(table.merge(ids[index], ids[index + 1])) }
        var count = ids.count
        ids.withUnsafeMutableBufferPointer { ids in
            ends.withUnsafeMutableBufferPointer { ends in
                merges.withUnsafeMutableBufferPointer { merges in
                    while count > 1 {
                        var best = 0
                        var rank = merges[0].rank
                        for index in 1..<max(1, count - 1) where merges[index].rank < rank {
                            rank = merges[index].rank
                            best = index
                        }
                        if rank == .max { break }
                        ids[best] = merges[best].id
                        ends[best] = ends[best + 1]
                        for index in best + 1..<count - 1 {
                            ids[index] = ids[index + 1]
                            ends[index] = ends[index + 1]
                        }
                        for index in best..<count - 2 { merges[index] = merges[index + 1] }
                        count -= 1
                        if best > 0 { merges[best - 1] = table.merge(ids[best - 1], ids[best]) }
                        if best < count - 1 { merges[best] = table.merge(ids[best], ids[best + 1]) }
                    }
                }
            }
        }
        ids.removeLast(ids.count - count)
        ends.removeLast(ends.count - count)
    }

    private mutating func mergeByHeap(_ table: PairTable) {
        let count = ids.count
        heap.removeAll(keepingCapacity: true)
        merges.removeAll(keepingCapacity: true)
        next.removeAll(keepingCapacity: true)
        previous.removeAll(keepingCapacity: true)
        for index in 0..<count {
            next.append(index + 1 < count ? Int32(index + 1) : -1)
            previous.append(Int32(index - 1))
            let merge =
                index + 1 < count ? table.merge(ids[index], ids[index + 1]) : PairTable.Merge(rank: .max, id: -1)
            merges.append(merge)
            if merge.rank != .max { heap.append(UInt64(merge.rank) << 32 | UInt64(index)) }
        }
        if heap.count > 1 { for index in (0..<heap.count / 2).reversed() { siftDown(index) } }
        while let top = heap.first {
            let last = heap.removeLast()
            if !heap.isEmpty {
                heap[0] = last
                siftDown(0)
            }
            let index = Int(top & 0xFFFF_FFFF)
            // A stale entry: this pair has changed or is gone.
            guard merges[index].rank == UInt32(top >> 32), next[index] >= 0 else { continue }
            let right = Int(next[index])
            ids[index] = merges[index].id
            ends[index] = ends[right]
            next[index] = next[right]
            if next[right] >= 0 { previous[Int(next[right])] = Int32(index) }
            merges[right].rank = .max
            next[right] = -2
            update(index, table)
            if previous[index] >= 0 { update(Int(previous[index]), table) }
        }
        var write = 0
        var read: Int32 = 0
        while read >= 0 {
            ids[write] = ids[Int(read)]
            ends[write] = ends[Int(read)]
            write += 1
            read = next[Int(read)]
        }
        ids.removeLast(ids.count - write)
        ends.removeLast(ends.count - write)
    }

    private mutating func update(_ index: Int, _ table: PairTable) {
        guard next[index] >= 0 else {
            merges[index].rank = .max
            return
        }
        merges[index] = table.merge(ids[index], ids[Int(next[index])])
        guard merges[index].rank != .max else { return }
        heap.append(UInt64(merges[index].rank) << 32 | UInt64(index))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child] < heap[parent] else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func siftDown(_ start: Int) {
        var parent = start
        while true {
            var child = parent * 2 + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
            guard heap[child] < heap[parent] else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }
}
