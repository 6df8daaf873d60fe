/// Parts of a source, and what share of the rows of a pass comes from each.
///
/// A pass is as long as the source. Of a part with more rows than its share a pass sees some, and the next passes the
/// others; the rows of a part with fewer come back within the pass. Which rows those are depends only on the seed and the
/// number of the pass, so that a position in a pass is all that resuming needs.
public struct PromptMix: Hashable, Sendable {
    public struct Part: Hashable, Sendable {
        /// What the part is called in messages.
        public let name: String
        /// Its rows in the source.
        public let rows: Range<Int>
        /// Relative to the other parts'.
        public let weight: Double

        public init(name: String, rows: Range<Int>, weight: Double) {
            self.name = name
            self.rows = rows
            self.weight = weight
        }
    }

    public let parts: [Part]
    /// How many rows of each part a pass has: they add up to all rows, by the largest remainder (Hamilton's method).
    public let quotas: [Int]

    /// - Parameter parts: together all rows of the source.
    /// - Throws: `DatasetError.badSetting` for a weight that is no positive number, or so small that a pass would have no row
    ///   of its part; `.empty` for a part without rows.
    public init(parts: [Part]) throws {
        let total = parts.reduce(0) { $0 + $1.weight }
        let count = parts.reduce(0) { $0 + $1.rows.count }
        for part in parts {
            guard part.weight > 0, part.weight.isFinite, total.isFinite else {
                throw DatasetError(
                    .badSetting, "'\(part.name)' has a weight of \(part.weight); data.train_weights are more than 0")
            }
            guard !part.rows.isEmpty else {
                throw DatasetError(.empty, "'\(part.name)' has a weight and no rows (all too long?); leave it out")
            }
        }
        let exact = parts.map { $0.weight / total * Double(count) }
        var quotas = exact.map { Int($0) }
        let byRemainder = exact.indices.sorted {
            let (left, right) = (exact[$0] - Double(quotas[$0]), exact[$1] - Double(quotas[$1]))
            return left != right ? left > right : $0 < $1
        }
        for index in byRemainder.prefix(max(0, count - quotas.reduce(0, +))) { quotas[index] += 1 }
        if let none = quotas.firstIndex(of: 0) {
            throw DatasetError(
                .badSetting,
                "'\(parts[none].name)' has so little weight (\(parts[none].weight) of \(total)) that none of "
                    + "the \(count) rows of a pass would be its; give it more, or leave it out")
        }
        self.parts = parts
        self.quotas = quotas
    }

    /// The same weights over the rows that a filter left.
    /// - Parameter indices: the rows left, in increasing order.
    public func keeping(_ indices: [Int]) throws -> PromptMix {
        func place(_ row: Int) -> Int {
            var (low, high) = (0, indices.count)
            while low < high {
                let middle = (low + high) / 2
                if indices[middle] < row { low = middle + 1 } else { high = middle }
            }
            return low
        }
        return try PromptMix(
            parts: parts.map {
                Part(name: $0.name, rows: place($0.rows.lowerBound)..<place($0.rows.upperBound), weight: $0.weight)
            })
    }

    /// The rows of a pass in their order, as indices of the source.
    /// - Parameter shuffles: whether parts and their rows are drawn by the seed; else parts take turns as evenly as they can,
    ///   and their rows come in order.
    public func order(pass: Int, seed: UInt64, shuffles: Bool) -> [UInt32] {
        var draws = parts.indices.map { index in
            PartDraws(parts[index].rows, from: pass * quotas[index], seed: seed, part: index, shuffles: shuffles)
        }
        return turns(pass: pass, seed: seed, shuffles: shuffles).map { draws[$0].next() }
    }

    /// Which part each row of a pass comes from.
    private func turns(pass: Int, seed: UInt64, shuffles: Bool) -> [Int] {
        let count = quotas.reduce(0, +)
        if shuffles {
            let sorted = quotas.enumerated().flatMap { Array(repeating: $0.offset, count: $0.element) }
            var generator = SplitMix64(seed: seed, part: UInt64(pass))
            return generator.permutation(count: count).map { sorted[Int($0)] }
        }
        var taken = Array(repeating: 0, count: quotas.count)
        return (0..<count).map { turn in
            // Who lags most behind its share; the first of equals.
            var best = -1
            var lag = -Double.infinity
            for part in quotas.indices where taken[part] < quotas[part] {
                let behind = Double(quotas[part]) * Double(turn + 1) / Double(count) - Double(taken[part])
                if behind > lag { (best, lag) = (part, behind) }
            }
            taken[best] += 1
            return best
        }
    }
}

/// The rows of one part, pass after pass over the part without an end.
private struct PartDraws {
    private let rows: Range<Int>
    private let seed: UInt64
    private let shuffles: Bool
    private var drawn: Int
    private var order: [UInt32] = []
    private var orderPass = -1

    /// - Parameter drawn: how many rows were drawn before.
    init(_ rows: Range<Int>, from drawn: Int, seed: UInt64, part: Int, shuffles: Bool) {
        self.rows = rows
        self.drawn = drawn
        self.shuffles = shuffles
        // A stream of its own for each part, apart from that of the turns.
        var generator = SplitMix64(seed: ~seed, part: UInt64(part))
        self.seed = generator.next()
    }

    mutating func next() -> UInt32 {
        let (pass, place) = drawn.quotientAndRemainder(dividingBy: rows.count)
        drawn += 1
        guard shuffles else { return UInt32(rows.lowerBound + place) }
        if pass != orderPass {
            var generator = SplitMix64(seed: seed, part: UInt64(pass))
            order = generator.permutation(count: rows.count)
            orderPass = pass
        }
        return UInt32(rows.lowerBound) + order[place]
    }
}
