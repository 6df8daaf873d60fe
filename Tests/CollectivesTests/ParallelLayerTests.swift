import Collectives
import TensorCore
import TestSupport
import Testing

/// Collectives with gradients, and the layers made of them, against one process.
@Suite struct ParallelLayerTests {
    static func values(_ shape: [Int], seed: UInt64) throws -> Tensor {
        try Tensor.randomNormal(shape, generator: RandomGenerator(seed: seed))
    }

    static func onGroup(_ size: Int, _ body: @escaping @Sendable (ProcessGroup) throws -> Void) throws {
        let store = try RendezvousStore.local()
        try onRanks(size) { rank in
            try withGrad {
                try body(
                    ProcessGroup.gloo(store, name: "layers", rank: rank, size: size, timeout: .seconds(30)))
            }
        }
    }

    static func leaf(_ tensor: Tensor) throws -> Tensor {
        let leaf = try tensor.detached().cloned()
        try leaf.setRequiresGrad()
        return leaf
    }

    /// The gradient of `sum(f(x) * weight)`.
    static func gradient(_ x: Tensor, weight: Tensor, _ f: (Tensor) throws -> Tensor) throws -> (Tensor, Tensor) {
        let leaf = try leaf(x), y = try f(leaf)
        try y.multiplied(by: weight).sum().backward()
        return (try y.detached(), try #require(try leaf.grad()))
    }

    static func expectClose(_ a: Tensor, _ b: Tensor, _ what: Comment, within: Double = 1e-6) throws {
        #expect(a.shape == b.shape, what)
        guard a.shape == b.shape, a.count > 0 else { return }
        let size = max(1, try b.abs().max().item())
        #expect(try a.subtracting(b).abs().max().item() <= within * size, what)
    }

    static func all(_ size: Int, _ shape: [Int], seed: UInt64) throws -> [Tensor] {
        try (0..<size).map { try values(shape, seed: seed + UInt64($0)) }
    }

    static func sum(_ tensors: [Tensor]) throws -> Tensor {
        try tensors.dropFirst().reduce(tensors[0]) { try $0.adding($1) }
    }

    @Test(arguments: [2, 3, 4], [1, 5, 8]) func collectivesCarryGradients(size: Int, rows: Int) throws {
        try Self.onGroup(size) { group in
            let rank = group.rank, chunk = (rows + size - 1) / size
            let inputs = try Self.all(size, [rows, 3], seed: 1), weights = try Self.all(size, [rows, 3], seed: 50)
            let x = inputs[rank], w = weights[rank]
            func padded(_ tensor: Tensor) throws -> Tensor {
                try Tensor.concatenate([tensor, Tensor.zeros([chunk * size - rows, 3])])
            }
            func own(_ tensor: Tensor) throws -> Tensor {
                try padded(tensor).narrowed(0, rank * chunk..<(rank + 1) * chunk)
            }

            var (y, g) = try Self.gradient(x, weight: w) { try $0.copied(to: group) }
            try Self.expectClose(y, x, "copy")
            try Self.expectClose(g, Self.sum(weights), "copy's gradient")

            (y, g) = try Self.gradient(x, weight: weights[0]) { try $0.summed(over: group) }
            try Self.expectClose(y, Self.sum(inputs), "sum")
            try Self.expectClose(g, weights[0], "sum's gradient")
            let before = try x.cloned()
            try Self.expectClose(withNoGrad { try before.summed(over: group) }, Self.sum(inputs), "sum, no gradient")

            (y, g) = try Self.gradient(x, weight: w) { try $0.summedBothWays(over: group) }
            try Self.expectClose(y, Self.sum(inputs), "sum both ways")
            try Self.expectClose(g, Self.sum(weights), "sum's gradient, both ways")

            (y, g) = try Self.gradient(x, weight: own(w)) { try $0.scatteredSum(over: group) }
            try Self.expectClose(y, own(Self.sum(inputs)), "scatter")
            let pieces = try weights.enumerated().map { rank, w in
                try padded(w).narrowed(0, rank * chunk..<(rank + 1) * chunk)
            }
            try Self.expectClose(g, Tensor.concatenate(pieces).narrowed(0, 0..<rows), "scatter's gradient")

            let chunks = try Self.all(size, [chunk, 3], seed: 90)
            let whole = try Tensor.concatenate(chunks).narrowed(0, 0..<rows)
            (y, g) = try Self.gradient(chunks[rank], weight: w) {
                try $0.gatheredRows(of: group, total: rows, gradient: .summed)
            }
            try Self.expectClose(y, whole, "gather")
            try Self.expectClose(g, own(Self.sum(weights)), "gather's gradient")
            (y, g) = try Self.gradient(chunks[rank], weight: w) {
                try $0.gatheredRows(of: group, total: rows, gradient: .own)
            }
            try Self.expectClose(g, own(w), "gather's own gradient")
            (_, g) = try Self.gradient(x, weight: w) { try $0.scalingGradient(by: 0.25) }
            try Self.expectClose(g, w.multiplied(by: 0.25), "scaled gradient")
        }
    }

    @Test func rowsGoToTheRanksTheyAreForAndGradientsBack() throws {
        // counts[a][b]: rows that a sends to b; one rank gets nothing at all.
        let counts = [[2, 0, 3], [1, 0, 0], [0, 0, 4]]
        try Self.onGroup(3) { group in
            let rank = group.rank, sends = counts[rank], receives = counts.map { $0[rank] }
            let inputs = try counts.enumerated().map { try Self.values([$1.reduce(0, +), 2], seed: UInt64($0)) }
            let (y, g) = try Self.gradient(
                inputs[rank], weight: Tensor.full([receives.reduce(0, +), 2], Double(rank + 1))
            ) {
                try $0.exchangedRows(in: group, inputRows: sends, outputRows: receives)
            }
            var expected: [Tensor] = []
            for (peer, input) in inputs.enumerated() {
                let start = counts[peer].prefix(rank).reduce(0, +)
                expected.append(try input.narrowed(0, start..<start + counts[peer][rank]))
            }
            try Self.expectClose(y, Tensor.concatenate(expected), "rows")
            let back = sends.enumerated().flatMap { [Float](repeating: Float($0 + 1), count: 2 * $1) }
            try Self.expectClose(g, Tensor(back, shape: [back.count / 2, 2]), "gradient")
        }
    }

    @Test(arguments: [(2, 4, 2), (4, 4, 2), (4, 8, 1), (3, 6, 3)])
    func headsComeTogetherAndGoBack(size: Int, queryHeads: Int, keyHeads: Int) throws {
        let tokens = 7
        try Self.onGroup(size) { group in
            let rank = group.rank
            let query = try Self.values([tokens, queryHeads, 3], seed: 1),
                key = try Self.values([tokens, keyHeads, 5], seed: 2)
            let q = try Self.leaf(query.ownRows(in: group)), k = try Self.leaf(key.ownRows(in: group))
            let both = try Tensor.tokensToHeads([q, k], total: tokens, in: group)
            let own = queryHeads / size
            try Self.expectClose(both[0], query.narrowed(1, rank * own..<(rank + 1) * own), "queries")
            let first = rank * keyHeads / size
            try Self.expectClose(both[1], key.narrowed(1, first..<first + max(1, keyHeads / size)), "keys")
            let back = try both[0].headsToTokens(in: group)
            try Self.expectClose(back, q, "back")
            try back.sum().adding(both[1].sum()).backward()
            let real = min(max(0, tokens - rank * q.size(0)), q.size(0))
            let expected = try #require(try q.grad()).narrowed(0, 0..<real)
            try Self.expectClose(expected, Tensor.ones(expected.shape), "query gradient")
            let copies = try #require(try k.grad()).narrowed(0, 0..<real)
            try Self.expectClose(copies, Tensor.full(copies.shape, Double(max(1, size / keyHeads))), "key gradient")
        }
    }

    @Test(arguments: [2, 3], [0.0, 2.0]) func logProbabilitiesOfASharedVocabularyAreThoseOfTheWhole(
        size: Int, cap: Double
    ) throws {
        // The last of three ranks has fewer rows than the others; with temperature, scale and cap.
        let vocabulary = 7, rows = 11
        try Self.onGroup(size) { group in
            let hidden = try Self.values([rows, 4], seed: 3), weight = try Self.values([vocabulary, 4], seed: 4)
            let targets = try Tensor((0..<rows).map { Int64($0 * 5 % vocabulary) })
            let g = try Self.values([rows], seed: 5), e = try Self.values([rows], seed: 6)
            let transform = LogitsTransform(scale: 1.5, softCap: cap > 0 ? cap : nil)
            let share = VocabularyShare(group: group, total: vocabulary)
            func run(_ body: (Tensor, Tensor) throws -> (logProbs: Tensor, entropies: Tensor), _ weight: Tensor) throws
                -> [Tensor]
            {
                let h = try Self.leaf(hidden), w = try Self.leaf(weight)
                let both = try body(h, w)
                try both.logProbs.multiplied(by: g).sum().adding(both.entropies.multiplied(by: e).sum()).backward()
                return [both.logProbs, both.entropies, try #require(try h.grad()), try #require(try w.grad())]
            }
            // The whole rows, by single operations.
            let expected = try run(
                { hidden, weight in
                    let logProbs = try transform(hidden.linear(weight)).divided(by: 0.7).logSoftmax(1)
                    return (
                        try logProbs.gathered(1, targets.unsqueezed(1)).squeezed(1),
                        try logProbs.exp().multiplied(by: logProbs).sum(1).negated()
                    )
                }, weight)
            let actual = try run(
                {
                    try Tensor.tokenLogProbs(
                        hidden: $0.copied(to: group), weight: $1, share: share, targets: targets, temperature: 0.7,
                        transform: transform, chunk: 4)
                }, weight.narrowed(0, share.rows))
            for (index, what) in ["log-probabilities", "entropies", "hidden gradient"].enumerated() {
                try Self.expectClose(actual[index], expected[index], Comment(rawValue: what), within: 4e-6)
            }
            try Self.expectClose(actual[3], expected[3].narrowed(0, share.rows), "weight gradient", within: 4e-6)

            let logits = try hidden.linear(weight.narrowed(0, share.rows)).gatheredColumns(of: group, total: vocabulary)
            try Self.expectClose(logits, hidden.linear(weight), "logits")
            let ids = try Tensor([Int64(6), 0, 3, 3]), own = try Self.leaf(weight.narrowed(0, share.rows))
            let found = try own.embedding(ids, rowsFrom: share.rows.lowerBound).summed(over: group)
            #expect(try found.subtracting(weight.embedding(ids)).abs().max().item() == 0)
            try found.sum().backward()
            let counts = share.rows.map { row in Float([6, 0, 3, 3].count { $0 == row }) }
            try Self.expectClose(
                #require(try own.grad()).narrowed(1, 0..<1).flattened(), Tensor(counts), "embedding gradient")
        }
    }
}
