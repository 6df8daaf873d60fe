/// Changes that know nothing of the format.
enum ByteMutator {
    /// Lengths, counts and offsets that parsers trip over.
    static let interesting: [UInt64] = [
        0, 1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 63, 64, 65, 127, 128, 255, 256, 1023, 4095, 4096, 65535, 65536, 1 << 20,
        0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, 1 << 40, 1 << 52, 0x0FFF_FFFF_FFFF_FFFF,
        0x1FFF_FFFF_FFFF_FFFF, 0x3FFF_FFFF_FFFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000,
        0xFFFF_FFFF_FFFF_FFF0, 0xFFFF_FFFF_FFFF_FFFF,
    ]

    static func mutate(_ bytes: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) {
        guard !bytes.isEmpty else {
            bytes = (0..<random.below(32)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            return
        }
        switch random.below(11) {
        case 0: for _ in 0...random.below(4) { bytes[random.below(bytes.count)] ^= 1 << UInt8(random.below(8)) }
        case 1:
            for _ in 0...random.below(4) {
                bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
            }
        case 2:
            put(random.pick(interesting), width: random.pick([1, 2, 4, 8]), at: random.below(bytes.count), in: &bytes)
        case 3:
            // What is there, off by a little.
            let place = random.below(bytes.count)
            bytes[place] = bytes[place] &+ UInt8(truncatingIfNeeded: random.below(9) - 4)
        case 4: bytes.removeLast(random.length(upTo: bytes.count))
        case 5: bytes.removeSubrange(random.range(in: bytes.count))
        case 6:
            let copied = Array(bytes[random.range(in: bytes.count)])
            bytes.insert(contentsOf: copied, at: random.below(bytes.count + 1))
        case 7:
            // A short stretch many times over: long runs, deep nesting.
            let start = random.below(bytes.count)
            let stretch = Array(bytes[start..<min(bytes.count, start + 1 + random.below(12))])
            let repeated = (0..<random.pick([10, 100, 1000])).flatMap { _ in stretch }
            bytes.insert(contentsOf: repeated, at: start)
        case 8:
            let added = (0..<random.length(upTo: 64)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            bytes.insert(contentsOf: added, at: random.below(bytes.count + 1))
        case 9 where !other.isEmpty:
            let taken = other[random.range(in: other.count)]
            let place = random.below(bytes.count)
            if random.chance(percent: 50) {
                bytes.insert(contentsOf: taken, at: place)
            } else {
                bytes.replaceSubrange(place..<min(bytes.count, place + taken.count), with: taken)
            }
        default:
            guard !other.isEmpty else { return }
            bytes = Array(bytes[..<random.below(bytes.count)]) + other[random.below(other.count)...]
        }
    }

    /// Writes the low `width` bytes of `value`, little-endian, as far as there is room.
    static func put(_ value: UInt64, width: Int, at place: Int, in bytes: inout [UInt8]) {
        for index in 0..<width where place + index < bytes.count {
            bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
        }
    }
}
