/// The merges of a BPE model: what a pair of neighbours becomes, and how early.
struct PairTable: Sendable {
    struct Merge: Hashable, Sendable {
        var rank: UInt32
        var id: Int32
    }

    private var slots: [(key: UInt64, merge: Merge)]
    private let shift: UInt64
    private let mask: Int
    private static let free = UInt64.max

    init(capacity: Int) {
        let size = Swift.max(16, (capacity * 3 / 2 + 1).nextPowerOfTwo)
        slots = Array(repeating: (Self.free, Merge(rank: .max, id: -1)), count: size)
        mask = size - 1
        shift = UInt64(64 - size.trailingZeroBitCount)
    }

    @inline(__always) private func slot(of key: UInt64) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> shift)
    }

    @inline(__always) private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    /// The merge of two neighbours; rank `UInt32.max` if there is none.
    @inline(__always) func merge(_ left: Int32, _ right: Int32) -> Merge {
        let key = Self.key(left, right)
        return slots.withUnsafeBufferPointer { slots in
            var slot = slot(of: key)
            while true {
                let found = slots[slot]
                if found.key == key { return found.merge }
                if found.key == Self.free { return Merge(rank: .max, id: -1) }
                slot = (slot + 1) & mask
            }
        }
    }

    /// - Precondition: no more pairs than the capacity.
    mutating func set(_ left: Int32, _ right: Int32, to merge: Merge) {
        let key = Self.key(left, right)
        var slot = slot(of: key)
        while slots[slot].key != key, slots[slot].key != Self.free { slot = (slot + 1) & mask }
        slots[slot] = (key, merge)
    }
}
