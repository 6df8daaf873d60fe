import PolicyAlgorithms
import TensorCore
import Testing

@Suite struct PreferenceLossTests {
    static let pairs = 5, width = 6

    /// Log-probabilities of five chosen then five rejected answers, of policy and reference, and their mask.
    static func batch() throws -> (policy: Tensor, reference: Tensor, mask: Tensor) {
        func random(_ seed: UInt64) throws -> Tensor {
            try Tensor.randomNormal([2 * pairs, width], generator: RandomGenerator(seed: seed)).abs().negated()
        }
        let lengths = [6, 1, 3, 2, 4, 5, 6, 2, 3, 1]
        let mask = lengths.flatMap { length in (0..<width).map { $0 < length ? Float(1) : 0 } }
        return (try random(1), try random(2), try Tensor(mask, shape: [2 * pairs, width]))
    }

    /// The rows of some pairs, chosen first.
    static func rows(_ tensor: Tensor, _ range: Range<Int>) throws -> Tensor {
        try Tensor.concatenate([
            tensor.narrowed(0, range), tensor.narrowed(0, range.lowerBound + pairs..<range.upperBound + pairs),
        ])
    }

    static let sortless = DPOLoss.Term.allCases.filter { $0 != .aot && $0 != .aotUnpaired }

    @Test(arguments: sortless) func dpoDoesNotDependOnTheSplit(term: DPOLoss.Term) throws {
        let batch = try Self.batch()
        let loss = DPOLoss([.init(term, weight: 0.7)], beta: 0.3, labelSmoothing: 0.1, tailWeight: 0.5)
        func run(_ range: Range<Int>) throws -> Double {
            try loss(
                logProbs: Self.rows(batch.policy, range), refLogProbs: Self.rows(batch.reference, range),
                mask: Self.rows(batch.mask, range), totals: .init(tokens: 16, sequences: 5, ranks: 2)
            ).loss.item()
        }
        let whole = try run(0..<5), shares = try run(0..<1) + run(1..<4) + run(4..<5)
        #expect(abs(whole - shares) < 1e-5 * max(1, abs(whole)))
    }

    @Test func ktoDoesNotDependOnTheSplit() throws {
        let batch = try Self.batch()
        let kl = try KTOLoss.kl(logProbs: batch.policy, refLogProbs: batch.reference, mask: batch.mask)
        let marks = (0..<10).map { $0 % 3 == 0 }
        func run(_ range: Range<Int>) throws -> Double {
            try KTOLoss(undesirableWeight: 1.5)(
                logProbs: batch.policy.narrowed(0, range), refLogProbs: batch.reference.narrowed(0, range),
                mask: batch.mask.narrowed(0, range), isDesirable: Array(marks[range]), kl: kl,
                totals: .init(sequences: 10)
            ).loss.item()
        }
        #expect(abs(try run(0..<10) - run(0..<4) - run(4..<10)) < 1e-6)
    }

    @Test(arguments: CPOLoss.Kind.allCases) func referenceFreeDoesNotDependOnTheSplit(kind: CPOLoss.Kind) throws {
        let sums = try Self.batch().policy.sum(-1)
        func run(_ range: Range<Int>) throws -> Double {
            let chosen = try sums.narrowed(0, range)
            let rejected = try sums.narrowed(0, range.lowerBound + Self.pairs..<range.upperBound + Self.pairs)
            let zero = try Tensor.zeros([]), totals = LossAggregation.Totals(sequences: 5)
            let cpo = try CPOLoss(kind, likelihoodWeight: 0)(chosen: chosen, rejected: rejected, totals: totals)
            let orpo = try ORPOLoss()(chosen: chosen, rejected: rejected, likelihoodLoss: zero, totals: totals)
            let model = try RewardModelLoss(centerCoefficient: 0.1)(chosen: chosen, rejected: rejected, totals: totals)
            return try cpo.loss.item() + orpo.loss.item() + model.loss.item()
        }
        let whole = try run(0..<5), shares = try run(0..<2) + run(2..<5)
        #expect(abs(whole - shares) < 1e-5 * max(1, abs(whole)))
    }

    /// Every term falls as the chosen answer gains on the rejected one, from where policy and reference are equal.
    /// DiscoPOP is not convex: there it rises.
    @Test(arguments: DPOLoss.Term.allCases.filter { $0 != .discopop }) func favoursTheChosenAnswer(term: DPOLoss.Term)
        throws
    {
        let batch = try Self.batch()
        let leaf = try batch.reference.cloned()
        try leaf.setRequiresGrad()
        let loss = DPOLoss([.init(term)], beta: 0.3, labelSmoothing: 0.1)
        try withGrad {
            try loss(logProbs: leaf, refLogProbs: batch.reference, mask: batch.mask).loss.backward()
        }
        let found = try leaf.grad()
        let gradient = try #require(found).multiplied(by: batch.mask).sum(-1).values(Double.self)
        let chosen = gradient[..<Self.pairs].reduce(0, +), rejected = gradient[Self.pairs...].reduce(0, +)
        // apo_down lowers both, the rejected answer more.
        #expect(term == .sft ? chosen < 0 && rejected == 0 : chosen < rejected)
    }

    @Test func errorsNameTheirRemedy() throws {
        let batch = try Self.batch()
        #expect {
            try DPOLoss([.init(.exoPair)])(
                logProbs: batch.policy, refLogProbs: batch.reference, mask: batch.mask)
        } throws: { ($0 as? AlgorithmError)?.code == .badSetting }
        #expect {
            try KTOLoss()(
                logProbs: batch.policy, refLogProbs: batch.reference, mask: batch.mask, isDesirable: [true])
        } throws: { ($0 as? AlgorithmError)?.code == .mismatch }
        let sums = try batch.policy.sum(-1)
        #expect { try CPOLoss()(chosen: sums, rejected: sums) } throws: {
            ($0 as? AlgorithmError)?.code == .missingInput
        }
    }
}
