/// Guessing the next tokens from what the sequence said before (prompt lookup, Saxena 2023). A draft never changes what is
/// generated: the number that decides a position's draw depends on the position alone, so a draft is right exactly when it equals
/// the token drawn there, and what follows the first wrong one is drawn again.
public struct Speculation: Sendable, Hashable {
    /// The most tokens guessed at a time.
    public var maxDraft: Int
    /// How many of the last tokens must have occurred before in the same order; the longest that did decides.
    public var minNgram, maxNgram: Int

    public init(maxDraft: Int = 4, minNgram: Int = 2, maxNgram: Int = 4) {
        self.maxDraft = maxDraft
        self.minNgram = minNgram
        self.maxNgram = maxNgram
    }
}

/// Where the n-grams of one sequence occurred last: a table for each length. It grows with the sequence, in constant time a token
/// and at most 16 bytes a token and length; the tokens stay the caller's.
struct DraftLookup: Sendable {
    private let minNgram: Int
    /// For n-grams of `minNgram` tokens and up.
    private var tables: [NgramTable]
    /// Where the n-grams that are in the tables end, at most.
    private var learned = 0

    init(_ speculation: Speculation) {
        minNgram = speculation.minNgram
        tables = (speculation.minNgram...speculation.maxNgram).map(NgramTable.init)
    }

    /// Takes in the n-grams that something follows. `tokens` begins with those of the call before.
    mutating func learn(_ tokens: [Int32]) {
        guard tokens.count > learned + 1 else { return }
        tokens.withUnsafeBufferPointer { tokens in
            for end in learned + 1..<tokens.count {
                for table in tables.indices where minNgram + table <= end {
                    tables[table].insert(end, tokens)
                }
            }
        }
        learned = tokens.count - 1
    }

    /// Up to `most` tokens that may follow: what followed the longest n-gram that ends here, when it occurred last. Where that runs
    /// into the end, it goes on with itself. Empty where no n-gram occurred before.
    mutating func draft(after tokens: [Int32], atMost most: Int) -> [Int32] {
        learn(tokens)
        let end = tokens.withUnsafeBufferPointer { tokens in
            for table in tables.indices.reversed() where minNgram + table <= tokens.count {
                if let end = tables[table].find(at: tokens.count, tokens) { return end }
            }
            return tokens.count
        }
        guard end < tokens.count else { return [] }
        var draft: [Int32] = []
        draft.reserveCapacity(most)
        for place in end..<end + most {
            draft.append(place < tokens.count ? tokens[place] : draft[place - tokens.count])
        }
        return draft
    }
}

/// Open addressing from the n-grams of a text to where each ended last. An entry is that end; its n-gram is read from the text.
struct NgramTable: Sendable {
    let n: Int
    private var ends: [Int32]
    private var count = 0

    init(n: Int) {
        self.n = n
        ends = Array(repeating: 0, count: 16)
    }

    mutating func insert(_ end: Int, _ tokens: UnsafeBufferPointer<Int32>) {
        if 2 * (count + 1) > ends.count { grow(tokens) }
        let slot = slot(at: end, tokens)
        if ends[slot] == 0 { count += 1 }
        ends[slot] = Int32(end)
    }

    /// Where the n-gram that ends at `end` ended before.
    func find(at end: Int, _ tokens: UnsafeBufferPointer<Int32>) -> Int? {
        let found = ends[slot(at: end, tokens)]
        return found == 0 ? nil : Int(found)
    }

    /// The slot of the n-gram that ends at `end`, or the empty one that it may have.
    private func slot(at end: Int, _ tokens: UnsafeBufferPointer<Int32>) -> Int {
        var hash: UInt64 = 0
        for token in tokens[end - n..<end] { hash = SplitMix64.mix(hash ^ UInt64(UInt32(bitPattern: token))) }
        let mask = ends.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while ends[slot] != 0, !isEqual(Int(ends[slot]), end, tokens) { slot = (slot + 1) & mask }
        return slot
    }

    private func isEqual(_ one: Int, _ two: Int, _ tokens: UnsafeBufferPointer<Int32>) -> Bool {
        for offset in 1...n where tokens[one - offset] != tokens[two - offset] { return false }
        return true
    }

    private mutating func grow(_ tokens: UnsafeBufferPointer<Int32>) {
        let old = ends
        ends = Array(repeating: 0, count: 2 * old.count)
        for end in old where end != 0 { ends[slot(at: Int(end), tokens)] = end }
    }
}
