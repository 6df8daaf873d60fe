import PolicyAlgorithms
import TensorCore
import Testing

/// Value loss, fine-tuning, controllers and shaping.
@Suite struct LossTests {
    @Test(arguments: LossAggregation.Mode.allCases) func valueLossDoesNotDependOnTheSplit(
        mode: LossAggregation.Mode
    ) throws {
        func random(_ seed: UInt64) throws -> Tensor {
            try Tensor.randomNormal([6, 5], generator: RandomGenerator(seed: seed))
        }
        let old = try random(1), new = try random(2), returns = try random(3), mask = try AlgorithmsTests.mask()
        func run(_ range: Range<Int>) throws -> (loss: Double, clipped: Double) {
            let result = try ValueLoss(clipRange: 0.3)(
                predictions: new.narrowed(0, range), oldValues: old.narrowed(0, range),
                returns: returns.narrowed(0, range), mask: mask.narrowed(0, range),
                aggregation: LossAggregation(mode, scaleFactor: 5), totals: .init(tokens: 20, sequences: 6))
            return (try result.loss.item(), try result.clipFraction.item())
        }
        let whole = try run(0..<6), parts = try [run(0..<1), run(1..<4), run(4..<6)]
        #expect(abs(whole.loss - parts.reduce(0) { $0 + $1.loss }) < 1e-4)
        #expect(abs(whole.clipped - parts.reduce(0) { $0 + $1.clipped }) < 1e-6 && whole.clipped > 0)
    }

    @Test(arguments: SFTLoss.Kind.allCases) func sftLossDoesNotDependOnTheSplit(kind: SFTLoss.Kind) throws {
        let logProbs = try Tensor.randomNormal([6, 5], generator: RandomGenerator(seed: 4)).abs().negated()
        let mask = try AlgorithmsTests.mask(), totals = LossAggregation.Totals(tokens: 20)
        func run(_ range: Range<Int>, _ totals: LossAggregation.Totals) throws -> Double {
            try SFTLoss(kind)(logProbs.narrowed(0, range), mask: mask.narrowed(0, range), totals: totals).item()
        }
        let whole = try run(0..<6, .init())
        #expect(abs(whole - (try run(0..<2, totals)) - (try run(2..<6, totals))) < 1e-5)
    }

    @Test func sftWithoutAWantedTokenIsZero() throws {
        let logits = try Tensor.randomNormal([2, 3, 7], generator: RandomGenerator(seed: 5))
        let result = try SFTLoss()(logits: logits, labels: Tensor.full([2, 3], -100, dtype: .int64))
        #expect(try result.loss.item() == 0 && result.entropy.item() == 0 && result.accuracy.item() == 0)
    }

    /// The first token of a packed sequence is predicted by nothing, least of all by its neighbour's last one.
    @Test func predictingMaskStaysWithinItsSequence() throws {
        let mask = try Tensor([Float(0), 1, 1, 1, 0, 1])
        #expect(try SFTLoss.predictingMask(mask, lengths: [3, 3]).values(Float.self) == [1, 1, 0, 0, 1, 0])
        #expect { try SFTLoss.predictingMask(mask, lengths: [3, 2]) } throws: {
            ($0 as? AlgorithmError)?.code == .mismatch
        }
    }

    @Test func adaptiveControllerSteersTowardsItsTarget() throws {
        var controller = try KLController(coefficient: 0.1, mode: .adaptive(target: 1, horizon: 100))
        controller.update(kl: 1, answers: 50)
        #expect(controller.coefficient == 0.1)
        controller.update(kl: 9, answers: 50)
        #expect(abs(controller.coefficient - 0.11) < 1e-12)
        controller.update(kl: 0.9, answers: 100)
        #expect(abs(controller.coefficient - 0.099) < 1e-12)
        #expect { try KLController(coefficient: 1, mode: .adaptive(target: 0, horizon: 1)) } throws: {
            ($0 as? AlgorithmError)?.code == .badSetting
        }
    }

    @Test func overlongPenaltyFallsAlongItsBuffer() throws {
        let line = try OverlongPenalty(maxLength: 10, buffer: 4, penalty: 2)
        #expect([5, 6, 8, 10, 12].map { line(length: $0) } == [0, 0, -1, -2, -3])
        let floor = try OverlongPenalty(maxLength: 10, buffer: 4, beyond: .floor)
        #expect([6, 8, 10, 11].map { floor(length: $0) } == [0, -0.5, -1, -1])
        #expect { try OverlongPenalty(maxLength: 3, buffer: 4) } throws: {
            ($0 as? AlgorithmError)?.code == .badSetting
        }
        #expect { try OverlongPenalty(maxLength: 3, buffer: 0) } throws: {
            ($0 as? AlgorithmError)?.code == .badSetting
        }
    }

    @Test func uniformLogitsHaveTheLargestEntropy() throws {
        let logits = try Tensor.full([2, 8], 1000)
        let entropy = try TokenDistribution.entropy(logits).values(Double.self)
        #expect(entropy.allSatisfy { abs($0 - 2.0794415) < 1e-5 })
        #expect(try TokenDistribution.sumPiSquared(logits).values(Float.self) == [0.125, 0.125])
    }
}
