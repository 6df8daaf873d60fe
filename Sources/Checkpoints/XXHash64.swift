/// XXH64 with seed 0, a fast 64-bit hash: finds cut files and flipped bits, and is no defence against an enemy. The `xxhsum -H64`
/// tool computes the same.
public struct XXHash64: Sendable {
    private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
    private static let prime5: UInt64 = 0x27D4_EB2F_1656_67C5

    private var lanes = SIMD4<UInt64>(prime1 &+ prime2, prime2, 0, 0 &- prime1)
    private var pending: [UInt8] = []
    private var length: UInt64 = 0

    public init() { pending.reserveCapacity(32) }

    public mutating func update(_ text: String) {
        var text = text
        text.withUTF8 { update(UnsafeRawBufferPointer($0)) }
    }

    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        length &+= UInt64(bytes.count)
        var offset = 0
        if !pending.isEmpty {
            let taken = min(32 - pending.count, bytes.count)
            pending.append(contentsOf: bytes[..<taken])
            offset = taken
            guard pending.count == 32 else { return }
            pending.withUnsafeBytes { consume($0) }
            pending.removeAll(keepingCapacity: true)
        }
        let whole = (bytes.count - offset) / 32 * 32
        consume(UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + whole)]))
        pending.append(contentsOf: bytes[(offset + whole)...])
    }

    private mutating func consume(_ stripes: UnsafeRawBufferPointer) {
        guard let base = stripes.baseAddress else { return }
        var (a, b, c, d) = (lanes[0], lanes[1], lanes[2], lanes[3])
        for offset in stride(from: 0, to: stripes.count, by: 32) {
            let from = base + offset
            a = Self.round(a, from.loadUnaligned(as: UInt64.self))
            b = Self.round(b, (from + 8).loadUnaligned(as: UInt64.self))
            c = Self.round(c, (from + 16).loadUnaligned(as: UInt64.self))
            d = Self.round(d, (from + 24).loadUnaligned(as: UInt64.self))
        }
        lanes = SIMD4(a, b, c, d)
    }

    public var value: UInt64 {
        var hash: UInt64
        if length >= 32 {
            hash = Self.rotate(lanes[0], 1) &+ Self.rotate(lanes[1], 7) &+ Self.rotate(lanes[2], 12)
            hash &+= Self.rotate(lanes[3], 18)
            for index in 0..<4 { hash = (hash ^ Self.round(0, lanes[index])) &* Self.prime1 &+ Self.prime4 }
        } else {
            hash = Self.prime5
        }
        hash &+= length
        return pending.withUnsafeBytes { tail in
            var offset = 0
            while tail.count - offset >= 8 {
                hash ^= Self.round(0, tail.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                hash = Self.rotate(hash, 27) &* Self.prime1 &+ Self.prime4
                offset += 8
            }
            if tail.count - offset >= 4 {
                hash ^= UInt64(tail.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) &* Self.prime1
                hash = Self.rotate(hash, 23) &* Self.prime2 &+ Self.prime3
                offset += 4
            }
            for byte in tail[offset...] {
                hash = Self.rotate(hash ^ UInt64(byte) &* Self.prime5, 11) &* Self.prime1
            }
            hash = (hash ^ hash >> 33) &* Self.prime2
            hash = (hash ^ hash >> 29) &* Self.prime3
            return hash ^ hash >> 32
        }
    }

    /// ``value`` in 16 hexadecimal digits.
    public var hexadecimal: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    @inline(__always) private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 {
        value &<< count | value &>> (64 &- count)
    }

    @inline(__always) private static func round(_ lane: UInt64, _ input: UInt64) -> UInt64 {
        rotate(lane &+ input &* prime2, 31) &* prime1
    }
}
