/// Which places of the key-value cache are free. A slot holds one token; sequences that share a prefix name the same slots.
public struct SlotPool: Sendable {
    private var free: [Int32]
    public let capacity: Int

    public init(capacity: Int) {
        self.capacity = capacity
        free = (0..<Int32(capacity)).reversed()
    }

    public var freeCount: Int { free.count }

    /// `count` free slots, or nil when there are not as many.
    public mutating func take(_ count: Int) -> [Int32]? {
        guard free.count >= count else { return nil }
        let taken = Array(free.suffix(count).reversed())
        free.removeLast(count)
        return taken
    }

    public mutating func give(back slots: some BidirectionalCollection<Int32>) {
        free.append(contentsOf: slots.reversed())
        precondition(free.count <= capacity, "a slot was given back twice")
    }
}
