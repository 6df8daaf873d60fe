/// A trie over bytes: its edges in one hash table of open addressing.
struct ByteTrie: Sendable {
    private var keys: [UInt64]
    private var children: [Int32]
    private var root = [Int32](repeating: -1, count: 256)
    private var values: [Int32] = [-1]
    private var edgeCount = 0
    private static let free = UInt64.max

    init(capacity: Int = 0) {
        let size = Swift.max(16, (capacity * 2).nextPowerOfTwo)
        keys = [UInt64](repeating: Self.free, count: size)
        children = [Int32](repeating: -1, count: size)
    }

    var isEmpty: Bool { values.count == 1 }

    @inline(__always) private static func slot(of key: UInt64, _ count: Int) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 20) & (count - 1)
    }

    /// The slot that holds the key, or the free one where it would go.
    @inline(__always) private static func find(_ key: UInt64, _ keys: UnsafeBufferPointer<UInt64>) -> Int {
        var slot = slot(of: key, keys.count)
        while keys[slot] != key, keys[slot] != free { slot = (slot + 1) & (keys.count - 1) }
        return slot
    }

    /// A later value replaces an earlier one of the same key.
    mutating func insert(_ key: some Collection<UInt8>, _ value: Int32) {
        var node: Int32 = 0
        for byte in key {
            if node == 0 {
                if root[Int(byte)] < 0 { root[Int(byte)] = addNode() }
                node = root[Int(byte)]
                continue
            }
            if (edgeCount + 1) * 2 > keys.count { grow() }
            let edge = UInt64(UInt32(node)) << 8 | UInt64(byte)
            let slot = keys.withUnsafeBufferPointer { Self.find(edge, $0) }
            if keys[slot] == Self.free {
                keys[slot] = edge
                children[slot] = addNode()
                edgeCount += 1
            }
            node = children[slot]
        }
        if node != 0 { values[Int(node)] = value }
    }

    private mutating func addNode() -> Int32 {
        values.append(-1)
        return Int32(values.count - 1)
    }

    private mutating func grow() {
        let (oldKeys, oldChildren) = (keys, children)
        keys = [UInt64](repeating: Self.free, count: oldKeys.count * 2)
        children = [Int32](repeating: -1, count: oldKeys.count * 2)
        for (key, child) in zip(oldKeys, oldChildren) where key != Self.free {
            let slot = keys.withUnsafeBufferPointer { Self.find(key, $0) }
            keys[slot] = key
            children[slot] = child
        }
    }

    /// Calls with each key that the text begins with at `start`, the shortest first.
    @inline(__always)
    func forEachPrefix(
        of text: UnsafeBufferPointer<UInt8>, from start: Int, _ body: (_ end: Int, _ value: Int32) -> Void
    ) {
        guard start < text.count else { return }
        var node = root[Int(text[start])]
        var position = start + 1
        keys.withUnsafeBufferPointer { keys in
            children.withUnsafeBufferPointer { children in
                values.withUnsafeBufferPointer { values in
                    while node >= 0 {
                        let value = values[Int(node)]
                        if value >= 0 { body(position, value) }
                        guard position < text.count else { return }
                        let slot = Self.find(UInt64(UInt32(node)) << 8 | UInt64(text[position]), keys)
                        node = children[slot]
                        position += 1
                    }
                }
            }
        }
    }

    /// The longest key that the text begins with at `start`.
    func longestPrefix(of text: UnsafeBufferPointer<UInt8>, from start: Int) -> (end: Int, value: Int32)? {
        var found: (Int, Int32)?
        forEachPrefix(of: text, from: start) { found = ($0, $1) }
        return found
    }
}
