/// Sharing out work evenly.
public enum Balance {
    /// Divides items of the given costs among `parts` so that the greatest sum is small, by the largest differencing method
    /// (Karmarkar & Karp 1982), for more than two parts as Michiels et al. (2003), who show that the greatest sum is at most
    /// 4/3 - 1/(3 · parts) times the least possible. The same input gives the same division everywhere.
    ///
    /// - Returns: `parts` lists of ascending indices, some of them empty when there are fewer items.
    public static func partition(_ costs: [Double], into parts: Int) -> [[Int]] {
        precondition(parts > 0, "\(parts) parts")
        var heap = DifferenceHeap()
        for (index, cost) in costs.enumerated() {
            var bins = [Division.Bin](repeating: .init(), count: parts)
            bins[0] = .init(sum: cost, items: [index])
            heap.push(Division(bins: bins, number: index))
        }
        var number = costs.count
        while let widest = heap.pop() {
            guard let next = heap.pop() else { return widest.bins.map { $0.items.sorted() } }
            heap.push(widest.merged(with: next, number: number))
            number += 1
        }
        return Array(repeating: [], count: parts)
    }
}

/// A division of some of the items.
private struct Division {
    struct Bin {
        var sum = 0.0
        var items: [Int] = []
    }

    /// Descending by sum.
    var bins: [Bin]
    /// Decides between equals.
    var number: Int

    private var difference: Double { bins[0].sum - bins[bins.count - 1].sum }

    /// Whether it is the one to take first.
    func precedes(_ other: Division) -> Bool {
        difference == other.difference ? number < other.number : difference > other.difference
    }

    /// The fullest bins of one with the emptiest of the other.
    func merged(with other: Division, number: Int) -> Division {
        var merged: [Bin] = []
        for (bin, mate) in zip(bins, other.bins.reversed()) {
            merged.append(Bin(sum: bin.sum + mate.sum, items: bin.items + mate.items))
        }
        let order = merged.indices.sorted {
            merged[$0].sum == merged[$1].sum ? $0 < $1 : merged[$0].sum > merged[$1].sum
        }
        return Division(bins: order.map { merged[$0] }, number: number)
    }
}

private struct DifferenceHeap {
    private var all: [Division] = []

    mutating func push(_ division: Division) {
        all.append(division)
        var child = all.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard all[child].precedes(all[parent]) else { return }
            all.swapAt(child, parent)
            child = parent
        }
    }

    mutating func pop() -> Division? {
        guard let last = all.popLast() else { return nil }
        guard let first = all.first else { return last }
        all[0] = last
        var parent = 0
        while true {
            var best = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < all.count && all[child].precedes(all[best]) {
                best = child
            }
            if best == parent { return first }
            all.swapAt(parent, best)
            parent = best
        }
    }
}
