import TensorCore

/// Which rank computes which sequences of a batch.
public enum BatchAssignment {
    /// Divides `sequences` among `ranks` by estimated work. Answers to one prompt stay on one rank, which computes the prompt once,
    /// unless the slowest rank is done sooner when some of them go elsewhere and the prompt is computed there as well. The same input
    /// gives the same division on every rank.
    ///
    /// - Returns: for each rank the indices of its sequences, answers to one prompt side by side; some are empty when there are
    ///   fewer sequences than ranks.
    public static func assign(
        _ sequences: [TrainingSequence], ranks: Int, work: SequenceWork, sharesPrefixes: Bool = true
    ) -> [[Int]] {
        var bundles =
            sharesPrefixes ? Bundle.byPrompt(sequences) : sequences.indices.map { Bundle(indices: [$0]) }
        func cost(_ bundle: Bundle) -> Double {
            work.group(
                prompt: sequences[bundle.indices[0]].prompt.count,
                answers: bundle.indices.map { sequences[$0].response.count }, sharesPrompt: sharesPrefixes)
        }
        func divided(_ bundles: [Bundle]) -> (parts: [[Int]], sums: [Double]) {
            let costs = bundles.map(cost)
            let parts = Balance.partition(costs, into: ranks)
            return (parts, parts.map { $0.reduce(0) { $0 + costs[$1] } })
        }
        var current = divided(bundles), best = current, bestBundles = bundles, fruitless = 0
        // Cuts the greatest bundle of the slowest rank in two. One cut may help only with the next: several ranks may be the slowest.
        while fruitless < ranks,
            let slowest = current.sums.indices.max(by: { current.sums[$0] < current.sums[$1] }),
            let widest = current.parts[slowest].filter({ bundles[$0].indices.count > 1 })
                .max(by: { cost(bundles[$0]) < cost(bundles[$1]) })
        {
            let halves = bundles[widest].halves { Double(sequences[$0].response.count) }
            bundles.replaceSubrange(widest...widest, with: halves)
            current = divided(bundles)
            guard let before = best.sums.max(), let after = current.sums.max(), after < 0.99 * before else {
                fruitless += 1
                continue
            }
            (best, bestBundles, fruitless) = (current, bundles, 0)
        }
        return best.parts.map { $0.flatMap { bestBundles[$0].indices } }
    }
}

/// Sequences that are computed together: answers to one prompt.
struct Bundle {
    var indices: [Int]

    static func byPrompt(_ sequences: [TrainingSequence], _ indices: [Int]? = nil) -> [Bundle] {
        var places: [[Int32]: Int] = [:], bundles: [Bundle] = []
        for index in indices ?? Array(sequences.indices) {
            let prompt = sequences[index].prompt
            if let place = places[prompt] {
                bundles[place].indices.append(index)
            } else {
                places[prompt] = bundles.count
                bundles.append(Bundle(indices: [index]))
            }
        }
        return bundles
    }

    /// Two bundles of about equal sums.
    func halves(_ size: (Int) -> Double) -> [Bundle] {
        // Equal answers of no length are still two.
        let parts = Balance.partition(indices.map { size($0) + 1 }, into: 2)
        return parts.map { Bundle(indices: $0.map { indices[$0] }) }
    }
}

extension MicroBatches {
    /// `indices` of `sequences` in `count` micro-batches of about equal work, heaviest first, each of at most `tokenBudget` computed
    /// tokens; nil where that does not work out. Ranks that do this with one `count` wait little for one another.
    public static func balanced(
        _ sequences: [TrainingSequence], indices: [Int], into count: Int, tokenBudget: Int, work: SequenceWork,
        sharesPrefixes: Bool
    ) -> [[Int]]? {
        guard count > 1, indices.count >= count else { return nil }
        let own = indices.map { sequences[$0] }
        let parts = BatchAssignment.assign(own, ranks: count, work: work, sharesPrefixes: sharesPrefixes)
        var weighed: [(cost: Double, part: [Int])] = []
        for part in parts {
            let batch = part.map { own[$0] }
            let fits = batch.count == 1 || Pack(batch, sharesPrefixes: sharesPrefixes).tokenCount <= tokenBudget
            guard !part.isEmpty, fits else { return nil }
            let cost = Bundle.byPrompt(batch).reduce(0.0) {
                $0
                    + work.group(
                        prompt: batch[$1.indices[0]].prompt.count,
                        answers: $1.indices.map { batch[$0].response.count }, sharesPrompt: sharesPrefixes)
            }
            weighed.append((cost, part.map { indices[$0] }))
        }
        return weighed.sorted { $0.cost > $1.cost }.map(\.part)
    }

    /// ``split(_:indices:tokenBudget:sharesPrefixes:)``, and over ranks, which wait for one another in every layer, of about equal work.
    static func ofEqualWork(
        _ sequences: [TrainingSequence], indices: [Int], tokenBudget: Int, sharesPrefixes: Bool,
        over parallel: DataParallel?
    ) throws(TorchError) -> [[Int]] {
        let split = split(sequences, indices: indices, tokenBudget: tokenBudget, sharesPrefixes: sharesPrefixes)
        guard let parallel, parallel.count > 1 else { return split }
        return balanced(
            sequences, indices: indices, into: try parallel.greatest(split.count), tokenBudget: tokenBudget,
            work: parallel.work, sharesPrefixes: sharesPrefixes) ?? split
    }

    /// `indices` of `sequences` in micro-batches of `size` sequences, answers to one prompt side by side.
    public static func split(_ sequences: [TrainingSequence], indices: [Int], size: Int) -> [[Int]] {
        let order = Bundle.byPrompt(sequences, indices).flatMap(\.indices)
        return stride(from: 0, to: order.count, by: size).map { Array(order[$0..<min($0 + size, order.count)]) }
    }
}
