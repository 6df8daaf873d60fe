internal import TensorCore

/// Who takes which place in a layout that is free to choose.
///
/// Which of the sampling engines a rank belongs to, and where in it, is often of no consequence: then ranks take the places whose
/// weights they hold most of already, as the HybridFlow paper's zero-redundancy grouping does.
public enum ReshardPlacement {
    /// For each rank, the place in `wanted` that it takes: greedily by the bytes that it holds of it, and its own where that is as good.
    public static func order(held: ShardLayout, wanted: ShardLayout) -> [Int] {
        let count = held.rankCount
        precondition(count == wanted.rankCount, "\(count) ranks hold, \(wanted.rankCount) places are wanted")
        let overlap = overlap(held, wanted)
        var pairs = (0..<count).flatMap { rank in (0..<count).map { (rank: rank, place: $0) } }
        pairs.sort { a, b in
            let (x, y) = (overlap[a.rank][a.place], overlap[b.rank][b.place])
            if x != y { return x > y }
            return (a.rank == a.place ? 0 : 1, a.rank, a.place) < (b.rank == b.place ? 0 : 1, b.rank, b.place)
        }
        var order = [Int?](repeating: nil, count: count), taken = Set<Int>()
        for (rank, place) in pairs where order[rank] == nil && !taken.contains(place) {
            order[rank] = place
            taken.insert(place)
        }
        return order.map { $0! }
    }

    /// Bytes that each rank holds of each place.
    private static func overlap(_ held: ShardLayout, _ wanted: ShardLayout) -> [[Int]] {
        var wishes: [String: [(place: Int, spec: ShardSpec)]] = [:]
        for (place, specs) in wanted.ranks.enumerated() {
            for spec in specs { wishes[spec.box.name, default: []].append((place, spec)) }
        }
        var bytes = [[Int]](repeating: Array(repeating: 0, count: wanted.rankCount), count: held.rankCount)
        for (rank, specs) in held.ranks.enumerated() {
            for spec in specs {
                for wish in wishes[spec.box.name] ?? [] {
                    bytes[rank][wish.place] += (spec.box.intersection(wish.spec.box)?.count ?? 0) * wish.spec.dtype.size
                }
            }
        }
        return bytes
    }
}

extension ShardLayout {
    /// The same places, taken by the ranks in another order.
    public func ordered(_ order: [Int]) -> ShardLayout {
        precondition(order.sorted() == Array(ranks.indices), "\(order) is no order of \(rankCount) places")
        return ShardLayout(ranks: order.map { ranks[$0] })
    }
}
