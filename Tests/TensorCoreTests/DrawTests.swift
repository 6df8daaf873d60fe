import TensorCore
import Testing

/// Draws whose terms and results are tensors: the distribution behind each filter, held against exact probabilities.
@Suite struct DrawTests {
    /// 40 logits, some of them equal.
    static let logits: [Float] = (0..<40).map { (index: Int) -> Float in
        0.4 * Float((index * 17 + 5) % 13 - index % 3)
    }

    struct Filter: Sendable, CustomTestStringConvertible {
        var temperature = 1.0, topK = 0, topP = 1.0, minP = 0.0
        var testDescription: String { "temperature \(temperature), top-k \(topK), top-p \(topP), min-p \(minP)" }
    }

    static let filters: [Filter] = [
        Filter(), Filter(temperature: 0.7), Filter(temperature: 2), Filter(topK: 1), Filter(topK: 7), Filter(topP: 0.6),
        Filter(topP: 0.97), Filter(minP: 0.1), Filter(minP: 1), Filter(temperature: 1.4, topK: 12),
        Filter(topK: 15, topP: 0.83), Filter(topK: 9, minP: 0.3), Filter(topP: 0.71, minP: 0.2),
        Filter(temperature: 0.8, topK: 20, topP: 0.91, minP: 0.04), Filter(topK: 1000, topP: 0.5),
    ]

    /// Probabilities by the definition: min-p, then the top k, then the nucleus of what is left; ties in the order of
    /// the vocabulary.
    private func exact(_ filter: Filter, _ logits: [Float]) throws -> [Double] {
        let p = try Tensor(logits.map { Double($0) / filter.temperature }).softmax(0).values(Double.self)
        let largest = p.max() ?? 0
        var kept = p.indices.filter { p[$0] >= filter.minP * largest * (1 - 1e-9) }
            .sorted { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }
        if filter.topK > 0 { kept = Array(kept.prefix(filter.topK)) }
        let left = kept.reduce(0) { $0 + p[$1] }
        var mass = 0.0, count = 0
        while count < kept.count, count == 0 || mass < filter.topP * left {
            mass += p[kept[count]]
            count += 1
        }
        var out = [Double](repeating: 0, count: p.count)
        for index in kept.prefix(filter.topP < 1 ? count : kept.count) { out[index] = p[index] }
        let total = out.reduce(0, +)
        return out.map { $0 / total }
    }

    /// Pearson's statistic of 20,000 draws from one seed, against its 99.9 % quantile.
    @Test(arguments: filters) func drawsFollowTheExactDistribution(filter: Filter) throws {
        let trials = 20_000
        let expected = try exact(filter, Self.logits)
        var random = SeededUniforms(state: 0x5eed)
        let rows = (0..<trials).map { _ in
            RowSampling(
                temperature: filter.temperature, topK: filter.topK, topP: filter.topP, minP: filter.minP,
                uniform: random.next())
        }
        let logits = try Tensor(Self.logits, shape: [1, 40]).expanded([trials, 40])
        let drawn = try logits.draw(SamplingTerms(rows, vocabulary: 40, device: .cpu))
        #expect(drawn.tokens.dtype == .int32 && drawn.logProbs.dtype == .float32)
        var counts = [Int](repeating: 0, count: 40)
        for token in try drawn.tokens.values(Int32.self) { counts[Int(token)] += 1 }
        var statistic = 0.0, cells = 0
        for (count, p) in zip(counts, expected) {
            if p == 0 {
                #expect(count == 0, "a token that is filtered out")
            } else {
                let mean = Double(trials) * p, gap = Double(count) - mean
                statistic += gap * gap / mean
                cells += 1
            }
        }
        // Wilson & Hilferty 1931.
        let degrees = Double(max(1, cells - 1)), spread = 2 / (9 * degrees)
        let root = 1 - spread + 3.09 * spread.squareRoot()
        #expect(statistic < degrees * root * root * root, "\(cells) tokens")
        // Log-probabilities are those before filters.
        let before = try Tensor(Self.logits.map { Double($0) / filter.temperature }).logSoftmax(0).values(Double.self)
        let tokens = try drawn.tokens.values(Int32.self), logProbs = try drawn.logProbs.values(Float.self)
        for row in stride(from: 0, to: trials, by: 97) {
            #expect(abs(Double(logProbs[row]) - before[Int(tokens[row])]) < 1e-4)
        }
    }

    @Test func resultsLandInSlicesOfABuffer() throws {
        let logits = try Tensor(Self.logits, shape: [1, 40]).expanded([3, 40]).contiguous()
        // One buffer of terms a step, one of results a ring.
        let terms = try Tensor([Float]([1, 0, 0.5, 0.1, 0.2, 0.9, 1, 1, 0.4, 0, 0, 0]))
        func slice(_ index: Int) throws -> Tensor { try terms.narrowed(0, 3 * index..<3 * index + 3) }
        let sampling = SamplingTerms(
            temperatures: try slice(0), uniforms: try slice(1),
            filters: .init(topK: try Tensor([Int32](repeating: 0, count: 3)), topP: try slice(2), minP: try slice(3)))
        let tokens = try Tensor.zeros([9], dtype: .int32), logProbs = try Tensor.zeros([9])
        try logits.draw(
            sampling, tokens: tokens.narrowed(0, 3..<6), logProbs: logProbs.narrowed(0, 3..<6))
        let plain = try logits.sample([
            RowSampling(uniform: Double(Float(0.1))), RowSampling(temperature: 0),
            RowSampling(temperature: 0.5, topP: Double(Float(0.4)), uniform: Double(Float(0.9))),
        ])
        #expect(try tokens.values(Int64.self) == [0, 0, 0] + plain.tokens + [0, 0, 0])
        #expect(try logProbs.values(Float.self) == [0, 0, 0] + plain.logProbs + [0, 0, 0])
    }

    @Test func aRowDoesNotDependOnItsNeighboursFilters() throws {
        let logits = try Tensor(Self.logits + Self.logits, shape: [2, 40])
        let alone = try logits.sample([RowSampling(uniform: 0.37), RowSampling(uniform: 0.8)])
        let mixed = try logits.sample([RowSampling(uniform: 0.37), RowSampling(topK: 3, topP: 0.9, uniform: 0.8)])
        #expect(alone.tokens[0] == mixed.tokens[0] && alone.logProbs[0] == mixed.logProbs[0])
    }

    @Test func refusesTermsThatDoNotFit() throws {
        let logits = try Tensor(Self.logits, shape: [1, 40])
        let one = try Tensor([Float(1)]), two = try Tensor([Float(1), 1])
        func refuses(_ terms: SamplingTerms) { #expect(throws: TorchError.self) { try logits.draw(terms) } }
        refuses(SamplingTerms(temperatures: two, uniforms: one))
        refuses(SamplingTerms(temperatures: one, uniforms: try Tensor([Int32(0)])))
        refuses(
            SamplingTerms(temperatures: one, uniforms: one, filters: .init(topK: one, topP: one, minP: one)))
        #expect(throws: TorchError.self) {
            try logits.draw(SamplingTerms(temperatures: one, uniforms: one), tokens: one, logProbs: one)
        }
    }

    @Test(arguments: [0, 0.25, 1 - 0x1p-30, 1 - 0x1p-53]) func narrowUniformsStayBelowOne(uniform: Double) {
        let narrow = SamplingTerms.narrowed(uniform: uniform)
        #expect(narrow >= 0 && narrow < 1 && abs(Double(narrow) - uniform) <= 0x1p-24)
    }

    // MARK: - Adjustments

    @Test(arguments: [DType.float32, .bfloat16]) func adjustmentsFollowTheFormula(dtype: DType) throws {
        let values: [Float] = [2, -2, 0.5, 0, 1, -1, 4, 8]
        let logits = try Tensor(values, shape: [2, 4]).to(dtype: dtype)
        try logits.adjust(
            LogitAdjustments(
                rows: Tensor([Int32(0), 0, 1, 1, -1, 0]), tokens: Tensor([Int32(0), 1, 2, 3, 3, 3]),
                factors: Tensor([Float(2), 2, 4, 1, 3, 5]), offsets: Tensor([Float(0), 0, -0.5, -.infinity, 9, 0.25])))
        #expect(try logits.values(Float.self) == [1, -4, 0.5, 0.25, 1, -1, 0.5, -.infinity])
        // A forbidden token is never drawn.
        let greedy = try logits.narrowed(0, 1..<2).sample([RowSampling(temperature: 0)])
        #expect(greedy.tokens == [0])
    }

    @Test func adjustmentsReachIntoAView() throws {
        let whole = try Tensor.zeros([3, 6])
        try whole.narrowed(0, 1..<3).narrowed(1, 2..<5).adjust(
            LogitAdjustments(
                rows: Tensor([Int32(1)]), tokens: Tensor([Int32(2)]), factors: Tensor([Float(1)]),
                offsets: Tensor([Float(7)])))
        var expected = [Float](repeating: 0, count: 18)
        expected[16] = 7
        #expect(try whole.values(Float.self) == expected)
    }

    @Test(arguments: [(0, 4), (2, 0), (0, -1)]) func adjustmentsOutsideAreRefused(row: Int, token: Int) throws {
        let logits = try Tensor.zeros([2, 4])
        #expect(throws: TorchError.self) {
            try logits.adjust(
                LogitAdjustments(
                    rows: Tensor([Int32(row)]), tokens: Tensor([Int32(token)]), factors: Tensor([Float(1)]),
                    offsets: Tensor([Float(1)])))
        }
    }

    // MARK: - The likeliest tokens

    @Test func topLogProbsAreTheSortedDistribution() throws {
        let values: [Float] = (0..<30).map { (index: Int) -> Float in 0.3 * Float(index * 7 % 15) + 0.01 * Float(index)
        }
        let logits = try Tensor(values, shape: [2, 15])
        let top = try logits.topLogProbs(
            count: 4, chosen: Tensor([Int32(3), 14]), temperatures: Tensor([Float(0.5), 0]))
        for (row, temperature) in [(0, 0.5), (1, 1.0)] {
            let own = values[row * 15..<row * 15 + 15].map { Double($0) / temperature }
            let logP = try Tensor(own).logSoftmax(0).values(Double.self)
            let order = logP.indices.sorted { logP[$0] > logP[$1] }
            let tokens = try top.tokens.values(Int64.self)[row * 4..<row * 4 + 4]
            #expect(tokens.map(Int.init) == Array(order.prefix(4)))
            for (a, b) in zip(try top.logProbs.values(Float.self)[row * 4..<row * 4 + 4], order) {
                #expect(abs(Double(a) - logP[b]) < 1e-5)
            }
            let chosen = row == 0 ? 3 : 14
            #expect(abs(Double(try top.chosenLogProbs.values(Float.self)[row]) - logP[chosen]) < 1e-5)
            #expect(Int(try top.chosenRanks.values(Int32.self)[row]) == (order.firstIndex(of: chosen) ?? -2) + 1)
        }
    }

    @Test func noAlternativesStillRankTheChosen() throws {
        let top = try Tensor([Float(1), 3, 2], shape: [1, 3]).topLogProbs(count: 0, chosen: Tensor([Int64(2)]))
        #expect(top.tokens.shape == [1, 0])
        #expect(try top.chosenRanks.values(Int32.self) == [2])
        #expect(throws: TorchError.self) {
            try Tensor([Float(1), 3, 2], shape: [1, 3]).topLogProbs(count: 4, chosen: Tensor([Int64(2)]))
        }
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014), so that the draws never change.
private struct SeededUniforms {
    var state: UInt64
    mutating func next() -> Double {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Double((z ^ (z >> 31)) >> 11) * 0x1p-53
    }
}
