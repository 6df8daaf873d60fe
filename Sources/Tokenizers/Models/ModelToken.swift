/// A token as a model gives it: its id and where it ends in the piece; it begins where the one before ends.
struct ModelToken {
    var id: Int32
    /// Complemented where several tokens stand for one stretch of text that ends here.
    var end: Int32

    mutating func move(by offset: Int32) { end = end < 0 ? ~(~end + offset) : end + offset }
}

/// Memory that one thread's encoding reuses from piece to piece.
///
/// Unchecked, because it is handed from thread to thread through the tokenizer's pool, which lends it to one at a time.
final class EncoderScratch: @unchecked Sendable {
    var tokens: [ModelToken] = []
    var cache = PieceCache()
    var merger = WordMerger()
    var bytes: [UInt8] = []
}

/// The tokens of pieces seen before. Emptied when it has grown to its bound.
struct PieceCache {
    static let longestKey = 128
    private static let maximumEntries = 1 << 16
    private static let slotCount = 1 << 17

    private struct Entry {
        var keyStart: UInt32
        var tokenStart: UInt32
        var keyCount: UInt16
        var tokenCount: UInt16
    }

    private var slots: [UInt64] = []
    private var entries: [Entry] = []
    private var keys: [UInt8] = []
    private var tokens: [ModelToken] = []

    /// Appends the ids of a piece; false if it is not here.
    @inline(__always)
    func append(_ key: UnsafeBufferPointer<UInt8>, _ hash: UInt64, to output: inout [ModelToken]) -> Bool {
        guard !slots.isEmpty else { return false }
        guard let entry = find(key, hash) else { return false }
        let start = Int(entry.tokenStart)
        tokens.withUnsafeBufferPointer {
            for index in start..<start + Int(entry.tokenCount) { output.append($0[index]) }
        }
        return true
    }

    @inline(__always)
    private func find(_ key: UnsafeBufferPointer<UInt8>, _ hash: UInt64) -> Entry? {
        slots.withUnsafeBufferPointer { slots in
            keys.withUnsafeBufferPointer { keys in
                var slot = Int(truncatingIfNeeded: hash) & (Self.slotCount - 1)
                let tag = hash >> 32
                while true {
                    let content = slots[slot]
                    if content == 0 { return nil }
                    if content >> 32 == tag {
                        let entry = entries[Int(content & 0xFFFF_FFFF) - 1]
                        if Int(entry.keyCount) == key.count {
                            var index = 0
                            let start = Int(entry.keyStart)
                            while index < key.count, keys[start + index] == key[index] { index += 1 }
                            if index == key.count { return entry }
                        }
                    }
                    slot = (slot + 1) & (Self.slotCount - 1)
                }
            }
        }
    }

    mutating func insert(_ key: UnsafeBufferPointer<UInt8>, _ hash: UInt64, _ found: ArraySlice<ModelToken>) {
        guard found.count <= Int(UInt16.max) else { return }
        if slots.isEmpty || entries.count >= Self.maximumEntries {
            slots = [UInt64](repeating: 0, count: Self.slotCount)
            entries.removeAll(keepingCapacity: true)
            keys.removeAll(keepingCapacity: true)
            tokens.removeAll(keepingCapacity: true)
        }
        var slot = Int(truncatingIfNeeded: hash) & (Self.slotCount - 1)
        while slots[slot] != 0 { slot = (slot + 1) & (Self.slotCount - 1) }
        entries.append(
            Entry(
                keyStart: UInt32(keys.count), tokenStart: UInt32(tokens.count), keyCount: UInt16(key.count),
                tokenCount: UInt16(found.count)))
        slots[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(entries.count)
        keys.append(contentsOf: key)
        tokens.append(contentsOf: found)
    }
}
