import PolicyAlgorithms
import TensorCore
import Testing

@Suite struct AdvantageTests {
    /// Two prompts of three answers with lengths 4, 2, 3 and 1, 4, 4; outcome rewards at the last token.
    static func inputs(_ scores: [Float] = [1, 0, 0.5, 2, -1, 0]) throws -> AdvantageInputs {
        let lengths = [4, 2, 3, 1, 4, 4]
        var rewards = [Float](repeating: 0, count: 24)
        for (row, length) in lengths.enumerated() { rewards[row * 4 + length - 1] = scores[row] }
        let mask = lengths.flatMap { length in (0..<4).map { $0 < length ? Float(1) : 0 } }
        let random = try Tensor.randomNormal([6, 4], generator: RandomGenerator(seed: 1))
        return AdvantageInputs(
            tokenLevelRewards: try Tensor(rewards, shape: [6, 4]), responseMask: try Tensor(mask, shape: [6, 4]),
            groups: [0, 0, 0, 1, 1, 1], values: random, rewardBaselines: [0, 0, 0, 1, 1, 1],
            oldLogProbs: try random.abs().negated().subtracting(0.1), sumPiSquared: try Tensor.full([6, 4], 0.5))
    }

    static func run(_ name: String, _ inputs: AdvantageInputs) throws -> [Double] {
        let make = try #require(AdvantageEstimators.all[name])
        let estimator = make(AdvantageSettings())
        return try estimator(inputs).advantages.values(Double.self)
    }

    @Test(arguments: AdvantageEstimators.all.keys.filter { $0 != "gae" }.sorted())
    func isZeroOutsideTheMask(name: String) throws {
        let inputs = try Self.inputs()
        for (advantage, mask) in zip(try Self.run(name, inputs), try inputs.responseMask.values(Double.self)) {
            if mask == 0 { #expect(advantage == 0) }
        }
    }

    /// A constant added to every score of a group changes nothing where a group is its own baseline.
    @Test(arguments: [
        "grpo", "grpo_vectorized", "gdpo", "rloo", "rloo_vectorized", "opo", "reinforce_plus_plus_baseline",
    ])
    func shiftingAGroupChangesNothing(name: String) throws {
        let plain = try Self.run(name, Self.inputs([1, 0, 0.5, 2, -1, 0]))
        let shifted = try Self.run(name, Self.inputs([4, 3, 3.5, 1, -2, -1]))
        for (a, b) in zip(plain, shifted) { #expect(abs(a - b) < 1e-5) }
    }

    /// Rows in another order give the same advantages in that order.
    @Test(arguments: AdvantageEstimators.all.keys.sorted()) func followsItsRows(name: String) throws {
        let order = [5, 0, 3, 1, 4, 2], plain = try Self.inputs()
        let index = try Tensor(order.map(Int64.init))
        func moved(_ tensor: Tensor?) throws -> Tensor? { try tensor?.indexSelect(0, index) }
        var other = plain
        other.tokenLevelRewards = try plain.tokenLevelRewards.indexSelect(0, index)
        other.responseMask = try plain.responseMask.indexSelect(0, index)
        other.groups = order.map { plain.groups[$0] }
        other.values = try moved(plain.values)
        other.rewardBaselines = order.map { plain.rewardBaselines![$0] }
        other.oldLogProbs = try moved(plain.oldLogProbs)
        other.sumPiSquared = try moved(plain.sumPiSquared)
        let before = try Self.run(name, plain), after = try Self.run(name, other)
        for (place, row) in order.enumerated() {
            for column in 0..<4 { #expect(abs(after[place * 4 + column] - before[row * 4 + column]) < 1e-5) }
        }
    }

    @Test func rlooIsTheScoreAgainstTheOthers() throws {
        let advantages = try Self.run("rloo", Self.inputs([1, 0, 0.5, 2, -1, 0]))
        #expect(abs(advantages[0] - 0.75) < 1e-6)
        #expect(abs(advantages[4] + 0.75) < 1e-6)
        #expect(abs(advantages[12] - 2.5) < 1e-6)
    }

    @Test func gaeCarriesOverWhatIsNoToken() throws {
        // The same answer with and without a tool's two words in its middle.
        func returns(_ rewards: [Float], _ values: [Float], _ mask: [Float]) throws -> [Double] {
            let shape = [1, rewards.count]
            return try GAEAdvantage(gamma: 0.9, lambda: 0.8)(
                AdvantageInputs(
                    tokenLevelRewards: Tensor(rewards, shape: shape), responseMask: Tensor(mask, shape: shape),
                    groups: [0], values: Tensor(values, shape: shape))
            ).returns.values(Double.self)
        }
        let plain = try returns([0, 0, 1], [0.3, 0.2, 0.4], [1, 1, 1])
        let gapped = try returns([0, 5, 5, 0, 1], [0.3, 7, 7, 0.2, 0.4], [1, 0, 0, 1, 1])
        for (a, b) in zip([plain[0], plain[1], plain[2]], [gapped[0], gapped[3], gapped[4]]) {
            #expect(abs(a - b) < 1e-6)
        }
    }

    @Test(arguments: [("gae", "values"), ("remax", "rewardBaselines"), ("optimal_token_baseline", "oldLogProbs")])
    func missingInputIsNamed(name: String, input: String) throws {
        let full = try Self.inputs()
        let bare = AdvantageInputs(
            tokenLevelRewards: full.tokenLevelRewards, responseMask: full.responseMask, groups: full.groups)
        let make = try #require(AdvantageEstimators.all[name])
        let estimator = make(AdvantageSettings())
        #expect { try estimator(bare) } throws: { error in
            (error as? AlgorithmError)?.code == .missingInput && "\(error)".contains(input)
        }
    }

    @Test(
        arguments: AdvantageEstimators.all.keys.filter { !["gae", "reinforce_plus_plus", "remax"].contains($0) }
            .sorted())
    func groupsAreCounted(name: String) throws {
        var inputs = try Self.inputs()
        inputs.groups.append(3)
        #expect { try Self.run(name, inputs) } throws: { ($0 as? AlgorithmError)?.code == .mismatch }
    }

    @Test func passKNeedsTwo() throws {
        var inputs = try Self.inputs()
        inputs.groups = [0, 0, 0, 1, 1, 7]
        #expect { try PassKAdvantage()(inputs) } throws: { ($0 as? AlgorithmError)?.code == .tooFew }
    }

    @Test func gdpoCountsItsComponents() throws {
        var inputs = try Self.inputs()
        inputs.rewardComponents = [[1, 2, 3, 4, 5, 6], [1, 2, 3]]
        #expect { try GDPOAdvantage()(inputs) } throws: { ($0 as? AlgorithmError)?.code == .mismatch }
        inputs.rewardComponents = [[1, 2, 3, 4, 5, 6]]
        #expect { try GDPOAdvantage(weights: [1, 1])(inputs) } throws: { ($0 as? AlgorithmError)?.code == .mismatch }
    }

    @Test func whiteningOneTokenIsAnError() throws {
        let one = try Tensor([Float(1), 0], shape: [1, 2])
        #expect { try Masked.whitened(one, one) } throws: { ($0 as? AlgorithmError)?.code == .tooFew }
    }
}
