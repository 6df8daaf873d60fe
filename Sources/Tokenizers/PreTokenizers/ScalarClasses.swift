/// One byte of class bits for every scalar, for the scanners written by hand.
struct ScalarClasses: Sendable {
    static let letter: UInt8 = 1
    static let number: UInt8 = 2
    static let space: UInt8 = 4
    static let mark: UInt8 = 8
    static let newline: UInt8 = 16

    static let shared = ScalarClasses()
    let table: [UInt8]

    private init() {
        var bits = [UInt8](repeating: 0, count: Int(ScalarSet.last) + 1)
        let sets: [(ScalarSet, UInt8)] = [
            (UnicodeProperties.letter, Self.letter), (UnicodeProperties.number, Self.number),
            (UnicodeProperties.whitespace, Self.space), (UnicodeProperties.mark, Self.mark),
            (ScalarSet([0x0A...0x0A, 0x0D...0x0D]), Self.newline),
        ]
        for (set, bit) in sets {
            for range in set.ranges { for scalar in range { bits[Int(scalar)] |= bit } }
        }
        table = bits
    }
}

/// The scanners for `KnownPattern`.
struct KnownPatternScanner {
    private let text: UnsafeBufferPointer<UInt8>
    private let bits: [UInt8]
    private let isGPT2: Bool
    /// What a word is made of.
    private let wordMask: UInt8
    private let digitLimit: Int

    init(_ known: KnownPattern, _ text: UnsafeBufferPointer<UInt8>) {
        self.text = text
        bits = ScalarClasses.shared.table
        isGPT2 = known == .gpt2
        wordMask = known == .qwen35 ? ScalarClasses.letter | ScalarClasses.mark : ScalarClasses.letter
        digitLimit = known == .gpt2 ? .max : known == .llama3 ? 3 : 1
    }

    @inline(__always) private func scalar(at position: Int) -> (bits: UInt8, length: Int) {
        let (value, length) = UTF8Scanner.scalar(in: text, at: position)
        return (bits.withUnsafeBufferPointer { $0[Int(value)] }, length)
    }

    /// The end of the match that begins at `position`.
    @inline(__always) func end(of position: Int) -> Int {
        isGPT2 ? endGPT2(position) : endNewer(position)
    }

    private func run(_ mask: UInt8, from start: Int) -> Int {
        var position = start
        while position < text.count {
            let (found, length) = scalar(at: position)
            guard found & mask != 0 else { break }
            position += length
        }
        return position
    }

    private func runWithout(_ mask: UInt8, from start: Int) -> Int {
        var position = start
        while position < text.count {
            let (found, length) = scalar(at: position)
            guard found & mask == 0 else { break }
            position += length
        }
        return position
    }

    /// `\s+(?!\S)|\s+`: a run of blanks, less its last one if text follows and more than one is there.
    private func blanks(from start: Int) -> Int {
        var position = start
        var last = start
        while position < text.count {
            let (found, length) = scalar(at: position)
            guard found & ScalarClasses.space != 0 else { break }
            last = position
            position += length
        }
        return position < text.count && last > start ? last : position
    }

    private func endGPT2(_ start: Int) -> Int {
        let lead = text[start]
        if lead == 0x27, let end = contraction(start, ignoresCase: false) { return end }
        var position = start
        if lead == 0x20 {
            guard start + 1 < text.count else { return start + 1 }
            position += 1
        }
        let (found, length) = scalar(at: position)
        let mask = ScalarClasses.letter | ScalarClasses.number | ScalarClasses.space
        switch found & mask {
        case ScalarClasses.letter: return run(ScalarClasses.letter, from: position + length)
        case ScalarClasses.number: return run(ScalarClasses.number, from: position + length)
        case 0: return runWithout(mask, from: position + length)
        default: return blanks(from: start)
        }
    }

    private func endNewer(_ start: Int) -> Int {
        let lead = text[start]
        if lead == 0x27, let end = contraction(start, ignoresCase: true) { return end }
        let (found, length) = scalar(at: start)
        let next = start + length
        if found & wordMask != 0 { return run(wordMask, from: next) }
        if found & ScalarClasses.number != 0 {
            var position = next
            var count = 1
            while count < digitLimit, position < text.count {
                let (other, length) = scalar(at: position)
                guard other & ScalarClasses.number != 0 else { break }
                position += length
                count += 1
            }
            return position
        }
        let follower: (bits: UInt8, length: Int)? = next < text.count ? scalar(at: next) : nil
        if found & ScalarClasses.newline == 0, let follower, follower.bits & wordMask != 0 {
            return run(wordMask, from: next + follower.length)
        }
        let taken = ScalarClasses.space | ScalarClasses.number | wordMask
        var symbols = found & taken == 0 ? next : 0
        if lead == 0x20, let follower, follower.bits & taken == 0 { symbols = next + follower.length }
        if symbols > 0 { return run(ScalarClasses.newline, from: runWithout(taken, from: symbols)) }
        // `\s*[\r\n]+`: up to the last newline of the run of blanks.
        var position = start
        var afterNewline = 0
        while position < text.count {
            let (other, length) = scalar(at: position)
            guard other & ScalarClasses.space != 0 else { break }
            position += length
            if other & ScalarClasses.newline != 0 { afterNewline = position }
        }
        return afterNewline > 0 ? afterNewline : blanks(from: start)
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`; without case `ſ` is an s too.
    private func contraction(_ start: Int, ignoresCase: Bool) -> Int? {
        func letter(_ offset: Int) -> UInt8 {
            guard start + offset < text.count else { return 0 }
            let byte = text[start + offset]
            return ignoresCase && (0x41...0x5A).contains(byte) ? byte + 0x20 : byte
        }
        switch letter(1) {
        case 0x73, 0x74, 0x6D, 0x64: return start + 2
        case 0x72, 0x76: return letter(2) == 0x65 ? start + 3 : nil
        case 0x6C: return letter(2) == 0x6C ? start + 3 : nil
        case 0xC5 where ignoresCase && letter(2) == 0xBF: return start + 3
        default: return nil
        }
    }
}
