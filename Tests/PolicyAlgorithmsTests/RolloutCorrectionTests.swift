import PolicyAlgorithms
import TensorCore
import Testing

@Suite struct RolloutCorrectionTests {
    static func tensors() throws -> (new: Tensor, old: Tensor, mask: Tensor) {
        let old = try Tensor.randomNormal([4, 5], generator: RandomGenerator(seed: 1)).abs().negated()
        let shift = try Tensor.randomNormal([4, 5], generator: RandomGenerator(seed: 2)).multiplied(by: 0.5)
        let mask = [5, 2, 0, 3].flatMap { length in (0..<5).map { $0 < length ? Float(1) : 0 } }
        return (try old.adding(shift), old, try Tensor(mask, shape: [4, 5]))
    }

    @Test(arguments: RolloutCorrection.Level.allCases) func equalPoliciesNeedNoCorrection(
        level: RolloutCorrection.Level
    ) throws {
        let (_, old, mask) = try Self.tensors()
        let rules = try RejectionRule.names.map { try RejectionRule(name: $0, threshold: "1.5") }
        let result = try RolloutCorrection(level: level, normalizes: true, rules: rules)(
            logProbs: old, rolloutLogProbs: old, mask: mask)
        #expect(try result.mask.equals(mask))
        for (a, b) in zip(try #require(result.weights).values(Double.self), try mask.values(Double.self)) {
            #expect(abs(a - b) < 1e-6)
        }
        #expect(result.metrics.count > 20)
    }

    @Test func weightsStayWithinTheirBounds() throws {
        let (new, old, mask) = try Self.tensors()
        for level in RolloutCorrection.Level.allCases {
            let tis = try RolloutCorrection(level: level, bounds: RatioBounds(upper: 1.2))(
                logProbs: new, rolloutLogProbs: old, mask: mask)
            #expect(try #require(tis.weights).max().item() <= 1.2001)
            let icePop = try RolloutCorrection(level: level, bounds: RatioBounds(lower: 0.8, upper: 1.2))(
                logProbs: new, rolloutLogProbs: old, mask: mask)
            for weight in try #require(icePop.weights).values(Double.self) {
                #expect(weight == 0 || (weight >= 0.7999 && weight <= 1.2001))
            }
        }
    }

    @Test(arguments: RejectionRule.names) func aRuleTakesOnlyTokensAway(name: String) throws {
        let (new, old, mask) = try Self.tensors()
        let result = try RolloutCorrection(rules: [RejectionRule(name: name, threshold: "1.05")])(
            logProbs: new, rolloutLogProbs: old, mask: mask)
        let before = try mask.values(Float.self), after = try result.mask.values(Float.self)
        #expect(zip(before, after).allSatisfy { $1 == $0 || $1 == 0 })
        if name.hasPrefix("seq") {
            for row in 0..<4 {
                let rows = (row * 5..<row * 5 + 5)
                let kept = rows.count { after[$0] != 0 }
                #expect(kept == 0 || kept == rows.count { before[$0] != 0 })
            }
        }
    }

    @Test func aBatchWithoutTokensHasNoMetrics() throws {
        let (new, old, mask) = try Self.tensors()
        let result = try RolloutCorrection(level: .token)(
            logProbs: new, rolloutLogProbs: old, mask: mask.multiplied(by: 0))
        #expect(result.metrics.isEmpty)
        #expect(try #require(result.weights).abs().max().item() == 0)
    }

    @Test(arguments: [
        ("seq_max_k1", "2"), ("token_k4", "2"), ("token_k2", "0.5_2"), ("token_k1", "2_0.5"), ("token_k1", "0.5"),
        ("token_k1", "-1"), ("token_k1", "x"), ("token_k1", ""), ("token_k1,token_k2,token_k3", "1,2"), ("", "1"),
        ("token_k3", "nan"),
    ]) func badRulesAreErrors(names: String, thresholds: String) {
        #expect { try RejectionRule.rules(names: names, thresholds: thresholds) } throws: {
            ($0 as? AlgorithmError)?.code == .badSetting
        }
    }

    @Test(arguments: [("token", "0"), ("token", "2_1"), ("token", "a_b"), ("answer", "2")])
    func badWeightsAreErrors(weights: String, threshold: String) {
        #expect { try RolloutCorrection(weights: weights, threshold: threshold) } throws: {
            ($0 as? AlgorithmError)?.code == .badSetting
        }
    }
}
