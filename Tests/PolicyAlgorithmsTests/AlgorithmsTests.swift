import PolicyAlgorithms
import TensorCore
import Testing

@Suite struct AlgorithmsTests {
    static let rows = 6, width = 5
    static func random(_ seed: UInt64, _ scale: Double = 1) throws -> Tensor {
        try Tensor.randomNormal([rows, width], generator: RandomGenerator(seed: seed)).multiplied(by: scale)
    }
    static func mask() throws -> Tensor {
        let lengths = [5, 1, 3, 2, 4, 5]
        return try Tensor(
            lengths.flatMap { length in (0..<width).map { $0 < length ? Float(1) : 0 } }, shape: [rows, width])
    }

    /// Whole-batch normalisers: the shares of any split add up to the loss of the whole.
    @Test(arguments: LossAggregation.Mode.allCases, [[6], [1, 5], [2, 2, 2], [1, 1, 1, 1, 1, 1]])
    func sharesAddUp(mode: LossAggregation.Mode, sizes: [Int]) throws {
        let losses = try Self.random(1), mask = try Self.mask()
        let aggregation = LossAggregation(mode, scaleFactor: 7)
        let whole = try aggregation(losses, mask: mask).item()
        var sum = 0.0, start = 0
        for size in sizes {
            let range = start..<start + size
            sum += try aggregation(
                losses.narrowed(0, range), mask: mask.narrowed(0, range), totals: .init(tokens: 20, sequences: 6)
            ).item()
            start += size
        }
        #expect(abs(whole - sum) < 1e-5)
    }

    @Test func whatTheMaskHidesDoesNotCount() throws {
        let mask = try Self.mask()
        let poisoned = try mask.greater(than: 0).select(Self.random(2), else: Tensor.full([], .nan))
        for mode in LossAggregation.Mode.allCases {
            #expect(try LossAggregation(mode)(poisoned, mask: mask).item().isFinite)
        }
    }

    @Test func grpoAdvantagesOfAGroupSumToZero() throws {
        var rewards = [Float](repeating: 0, count: 30)
        for row in 0..<6 { rewards[row * 5] = Float(row * row) }
        let inputs = AdvantageInputs(
            tokenLevelRewards: try Tensor(rewards, shape: [6, 5]), responseMask: try Tensor.ones([6, 5]),
            groups: [0, 1, 0, 1, 0, 1])
        let values = try GRPOAdvantage()(inputs).advantages.selected(1, 0).values(Double.self)
        #expect(abs(values[0] + values[2] + values[4]) < 1e-6 && abs(values[1] + values[3] + values[5]) < 1e-6)
        let equal = AdvantageInputs(
            tokenLevelRewards: try Tensor.ones([6, 5]), responseMask: try Tensor.ones([6, 5]),
            groups: [0, 0, 0, 1, 1, 1])
        #expect(try GRPOAdvantage()(equal).advantages.abs().max().item() == 0)
    }

    @Test func ppoIsPolicyGradientOnPolicyAndFlatBeyondTheClip() throws {
        let old = try Self.random(3, 0.1), advantages = try Self.random(4), mask = try Tensor.ones([6, 5])
        let loss = PPOClipLoss()
        func gradient(_ shift: Double) throws -> [Float] {
            let logProbs = try old.adding(shift)
            try logProbs.setRequiresGrad()
            try withGrad {
                try loss(
                    PolicyLossArguments(
                        oldLogProbs: old, logProbs: logProbs, advantages: advantages, responseMask: mask,
                        aggregation: LossAggregation(.tokenSum))
                ).loss.backward()
            }
            return try #require(try logProbs.grad()).values(Float.self)
        }
        for (g, a) in zip(try gradient(0), try advantages.values(Float.self)) { #expect(abs(g + a) < 1e-5) }
        for (g, a) in zip(try gradient(1), try advantages.values(Float.self)) where a > 0 { #expect(g == 0) }
        for (g, a) in zip(try gradient(-1), try advantages.values(Float.self)) where a < 0 { #expect(g == 0) }
        // Far above the range with a negative advantage, dual clip stops the loss from growing.
        for (g, a) in zip(try gradient(2), try advantages.values(Float.self)) where a < 0 { #expect(g == 0) }
    }

    @Test(arguments: KLEstimator.names) func klIsZeroForEqualPolicies(name: String) throws {
        let logProbs = try Self.random(5)
        let estimator = try #require(KLEstimator(name: name))
        #expect(try estimator(logProbs, logProbs).abs().max().item() == 0)
    }
    @Test func unknownKLIsNil() { #expect(KLEstimator(name: "k9") == nil) }
}
