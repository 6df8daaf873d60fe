import TensorCore
import Testing

/// The head's forward and backward at once against the two apart.
extension FusedLayerTests {
    struct LossCase: Sendable, CustomTestStringConvertible {
        var transform = LogitsTransform.identity
        var chunk: Int?
        var hasEntropy = false
        var testDescription: String {
            "scale \(transform.scale), cap \(transform.softCap ?? 0), chunk \(chunk ?? 0), entropy \(hasEntropy)"
        }

        static let all: [LossCase] = [
            LossCase(), LossCase(chunk: 1), LossCase(chunk: 4, hasEntropy: true),
            LossCase(transform: LogitsTransform(scale: 0.3), hasEntropy: true),
            LossCase(transform: LogitsTransform(scale: 1.7, softCap: 4), chunk: 3, hasEntropy: true),
        ]
    }

    @Test(arguments: LossCase.all, [DType.float32, .bfloat16])
    func tokenLossIsForwardAndBackward(test: LossCase, dtype: DType) throws {
        let tokens = 11, width = 24, vocabulary = 53, temperature = 0.7
        let hidden = try leaf([tokens, width], dtype), weight = try leaf([vocabulary, width], dtype)
        let targets = try Tensor.randomIntegers(0..<vocabulary, [tokens], generator: generator)
        let g = try Tensor.randomNormal([tokens], generator: generator)
        let ge = test.hasEntropy ? try Tensor.randomNormal([tokens], generator: generator) : nil
        let apart = try withGrad {
            let both = try Tensor.tokenLogProbs(
                hidden: hidden, weight: weight, targets: targets, temperature: temperature, transform: test.transform,
                chunk: test.chunk)
            var loss = try both.logProbs.multiplied(by: g).sum()
            if let ge { loss = try loss.adding(both.entropies.multiplied(by: ge).sum()) }
            try loss.backward()
            return both
        }
        let expected = try #require(try weight.grad()).cloned()
        // On top of what is there, and in the same tensor.
        let before = try #require(try weight.grad())
        let once = try Tensor.tokenLoss(
            hidden: hidden, weight: weight, targets: targets, logProbGrads: g, entropyGrads: ge,
            temperature: temperature, transform: test.transform, chunk: test.chunk)
        #expect(try #require(try weight.grad()).sharesStorage(with: before))
        try expectClose(once.logProbs, apart.logProbs, 1e-6)
        try expectClose(once.entropies, apart.entropies, 1e-6)
        let tolerance = dtype == .float32 ? 1e-5 : 2e-2
        try expectClose(once.hiddenGrad, try #require(try hidden.grad()), tolerance)
        try expectClose(try #require(try weight.grad()), expected.multiplied(by: 2), tolerance)
        #expect(!once.logProbs.requiresGrad && !once.hiddenGrad.requiresGrad)
    }

    @Test func backwardAddsToTheGradientThatIsThere() throws {
        let hidden = try leaf([5, 8]), weight = try leaf([13, 8])
        let targets = try Tensor.randomIntegers(0..<13, [5], generator: generator)
        func run() throws -> Tensor {
            try withGrad {
                try Tensor.tokenLogProbs(hidden: hidden, weight: weight, targets: targets, chunk: 2).logProbs.sum()
                    .backward()
            }
            return try #require(try weight.grad())
        }
        let first = try run(), once = try first.cloned(), second = try run()
        #expect(second.sharesStorage(with: first))
        try expectClose(second, once.multiplied(by: 2), 1e-6)
    }

    @Test func aFrozenHeadGetsNoGradient() throws {
        let hidden = try leaf([5, 8]), weight = try Tensor.randomNormal([13, 8], generator: generator)
        let targets = try Tensor.zeros([5], dtype: .int64)
        let result = try Tensor.tokenLoss(
            hidden: hidden, weight: weight, targets: targets, logProbGrads: Tensor.ones([5]))
        #expect(try weight.grad() == nil)
        #expect(try result.hiddenGrad.abs().sum().item() > 0)
    }

    @Test func aComputedHeadIsRefused() throws {
        let hidden = try leaf([5, 8]), weight = try withGrad { try leaf([13, 8]).multiplied(by: 2) }
        let targets = try Tensor.zeros([5], dtype: .int64)
        #expect(throws: TorchError.self) {
            try Tensor.tokenLoss(hidden: hidden, weight: weight, targets: targets, logProbGrads: Tensor.ones([5]))
        }
        #expect(throws: TorchError.self) {
            try Tensor.tokenLoss(
                hidden: hidden, weight: leaf([13, 8]), targets: targets, logProbGrads: Tensor.ones([4]))
        }
    }
}
