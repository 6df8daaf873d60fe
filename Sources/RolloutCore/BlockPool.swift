/// The blocks of the key-value cache: who holds which, and which are free. A block may be held by many sequences; one that
/// nobody holds can still be found by what it contains until its room is wanted, longest unused first.
public struct BlockPool: Sendable {
    public let capacity: Int
    private var holders: [Int32]
    /// The key of what a block contains, where it may be found again by it.
    private var keys: [PrefixKey?]
    private var blocks: [PrefixKey: Int32] = [:]
    /// Free blocks as a list, from the one to take next to the one freed last; `capacity` is both ends.
    private var before, after: [Int32]
    public private(set) var freeCount: Int

    public init(capacity: Int) {
        precondition(capacity > 0 && capacity < Int(Int32.max), "a pool of \(capacity) blocks")
        self.capacity = capacity
        freeCount = capacity
        holders = Array(repeating: 0, count: capacity)
        keys = Array(repeating: nil, count: capacity)
        // A ring through every block and the sentinel.
        after = (0...Int32(capacity)).map { $0 == Int32(capacity) ? 0 : $0 + 1 }
        before = (0...Int32(capacity)).map { $0 == 0 ? Int32(capacity) : $0 - 1 }
    }

    /// How many hold the block.
    public func holderCount(_ block: Int32) -> Int { Int(holders[Int(block)]) }
    /// Blocks that can be found by content.
    public var findableCount: Int { blocks.count }

    /// A free block for one holder; nil when there is none. What it contained is forgotten.
    public mutating func take() -> Int32? {
        guard freeCount > 0 else { return nil }
        let block = after[capacity]
        unlink(block)
        if let key = keys[Int(block)] {
            blocks[key] = nil
            keys[Int(block)] = nil
        }
        holders[Int(block)] = 1
        return block
    }

    /// One more holder of a block that somebody holds, or that was found by its content.
    public mutating func hold(_ block: Int32) {
        if holders[Int(block)] == 0 { unlink(block) }
        holders[Int(block)] += 1
    }

    /// One holder less; at none the block is free.
    public mutating func release(_ block: Int32) {
        precondition(holders[Int(block)] > 0, "block \(block) was given back twice")
        holders[Int(block)] -= 1
        guard holders[Int(block)] == 0 else { return }
        // What can be found again is kept as long as there is other room.
        link(block, first: keys[Int(block)] == nil)
    }

    /// Makes a full block findable, unless another of the same content is.
    public mutating func register(_ block: Int32, as key: PrefixKey) {
        guard blocks[key] == nil, keys[Int(block)] == nil else { return }
        blocks[key] = block
        keys[Int(block)] = key
    }

    public func find(_ key: PrefixKey) -> Int32? { blocks[key] }

    /// Forgets every content: the weights that computed it have changed.
    public mutating func forgetContents() {
        for block in blocks.values { keys[Int(block)] = nil }
        blocks.removeAll(keepingCapacity: true)
    }

    private mutating func unlink(_ block: Int32) {
        let previous = before[Int(block)], next = after[Int(block)]
        after[Int(previous)] = next
        before[Int(next)] = previous
        freeCount -= 1
    }

    private mutating func link(_ block: Int32, first: Bool) {
        let end = Int32(capacity)
        let previous = first ? end : before[capacity], next = first ? after[capacity] : end
        after[Int(previous)] = block
        before[Int(block)] = previous
        after[Int(block)] = next
        before[Int(next)] = block
        freeCount += 1
    }

    /// Free blocks counted along the list; for the invariants' sake.
    func freeBlocks() -> [Int32] {
        var all: [Int32] = []
        var block = after[capacity]
        while block != Int32(capacity), all.count <= capacity {
            all.append(block)
            block = after[Int(block)]
        }
        return all
    }

    /// What is wrong, if anything, where `held` says how many hold each block.
    func brokenInvariant(holders held: [Int]) -> String? {
        for block in 0..<capacity where held[block] != Int(holders[block]) {
            return "block \(block) has \(held[block]) holders, the pool counts \(holders[block])"
        }
        var isFree = [Bool](repeating: false, count: capacity)
        let free = freeBlocks()
        for block in free {
            if isFree[Int(block)] || holders[Int(block)] > 0 { return "block \(block) is free twice, or held" }
            isFree[Int(block)] = true
        }
        return free.count == freeCount ? nil : "the free blocks are \(free), counted \(freeCount)"
    }
}

/// What a full block contains: 128 bits over its tokens and all tokens before them.
public struct PrefixKey: Hashable, Sendable {
    let high, low: UInt64

    public static let root = PrefixKey(high: 0x243F_6A88_85A3_08D3, low: 0x1319_8A2E_0370_7344)

    /// The key of the block that follows this one's.
    public func next(_ tokens: some Sequence<Int32>) -> PrefixKey {
        var high = high, low = low
        for token in tokens {
            let bits = UInt64(UInt32(bitPattern: token)) + 1
            high = SplitMix64.mix(high ^ bits)
            low = SplitMix64.mix(low &+ bits &* 0xD1B5_4A32_D192_ED03) ^ (high >> 32)
        }
        return PrefixKey(high: high, low: low)
    }
}
