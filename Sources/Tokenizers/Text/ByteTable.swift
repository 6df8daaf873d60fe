/// Hashing of short byte strings: eight bytes a round, multiply and fold.
enum ByteHash {
    @inline(__always)
    static func hash(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        var hash: UInt64 = UInt64(truncatingIfNeeded: bytes.count) &* 0x9E37_79B9_7F4A_7C15
        guard let base = UnsafeRawPointer(bytes.baseAddress) else { return hash }
        var position = 0
        while position + 8 <= bytes.count {
            hash = mix(hash ^ base.loadUnaligned(fromByteOffset: position, as: UInt64.self))
            position += 8
        }
        let left = bytes.count - position
        if left > 0 {
            var word: UInt64 = 0
            if left >= 4 {
                let low = base.loadUnaligned(fromByteOffset: position, as: UInt32.self)
                let high = base.loadUnaligned(fromByteOffset: bytes.count - 4, as: UInt32.self)
                word = UInt64(low) | UInt64(high) << 32
            } else {
                word = UInt64(bytes[position]) | UInt64(bytes[position + left / 2]) << 8
                word |= UInt64(bytes[bytes.count - 1]) << 16
            }
            hash = mix(hash ^ word)
        }
        return hash
    }

    @inline(__always) static func mix(_ value: UInt64) -> UInt64 {
        let product = (value ^ 0xA076_1D64_78BD_642F).multipliedFullWidth(by: 0xE703_7ED1_A0B4_28DB)
        return product.high ^ product.low
    }
}

/// A map from byte strings to ids, its keys in one buffer. Later values replace earlier ones of the same key.
struct ByteTable: Sendable {
    private var storage: [UInt8] = []
    private var starts: [UInt32] = [0]
    private var values: [Int32] = []
    /// The upper half of the hash, then the entry's number + 1; 0 is empty.
    private var slots: [UInt64]
    private var mask: Int

    init(capacity: Int = 0) {
        let size = max(16, (capacity * 3 / 2 + 1).nextPowerOfTwo)
        slots = [UInt64](repeating: 0, count: size)
        mask = size - 1
        starts.reserveCapacity(capacity + 1)
        values.reserveCapacity(capacity)
        storage.reserveCapacity(capacity * 8)
    }

    var count: Int { values.count }

    @inline(__always)
    private func find(_ key: UnsafeBufferPointer<UInt8>, _ hash: UInt64) -> (slot: Int, entry: Int?) {
        var slot = Int(truncatingIfNeeded: hash) & mask
        let tag = hash >> 32
        while true {
            let content = slots[slot]
            if content == 0 { return (slot, nil) }
            if content >> 32 == tag {
                let entry = Int(content & 0xFFFF_FFFF) - 1
                let start = Int(starts[entry])
                if Int(starts[entry + 1]) - start == key.count {
                    let isSame = storage.withUnsafeBufferPointer { bytes in
                        for index in 0..<key.count where bytes[start + index] != key[index] { return false }
                        return true
                    }
                    if isSame { return (slot, entry) }
                }
            }
            slot = (slot + 1) & mask
        }
    }

    func value(for key: UnsafeBufferPointer<UInt8>) -> Int32? {
        guard let entry = find(key, ByteHash.hash(key)).entry else { return nil }
        return values[entry]
    }

    func value(for key: some Collection<UInt8>) -> Int32? {
        if let found = key.withContiguousStorageIfAvailable({ value(for: $0) }) { return found }
        return Array(key).withUnsafeBufferPointer { value(for: $0) }
    }

    mutating func set(_ key: UnsafeBufferPointer<UInt8>, to value: Int32) {
        if (values.count + 1) * 4 > slots.count * 3 { grow() }
        let hash = ByteHash.hash(key)
        let (slot, entry) = find(key, hash)
        if let entry {
            values[entry] = value
            return
        }
        storage.append(contentsOf: key)
        starts.append(UInt32(storage.count))
        values.append(value)
        slots[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(values.count)
    }

    private mutating func grow() {
        let size = slots.count * 2
        slots = [UInt64](repeating: 0, count: size)
        mask = size - 1
        storage.withUnsafeBufferPointer { bytes in
            for entry in values.indices {
                let range = Int(starts[entry])..<Int(starts[entry + 1])
                let hash = ByteHash.hash(UnsafeBufferPointer(rebasing: bytes[range]))
                var slot = Int(truncatingIfNeeded: hash) & mask
                while slots[slot] != 0 { slot = (slot + 1) & mask }
                slots[slot] = hash & 0xFFFF_FFFF_0000_0000 | UInt64(entry + 1)
            }
        }
    }
}

extension Int {
    /// The least power of two that is not less.
    var nextPowerOfTwo: Int { self <= 1 ? 1 : 1 << (Int.bitWidth - (self - 1).leadingZeroBitCount) }
}
