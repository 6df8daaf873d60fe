import Models
import TensorCore
import Testing

@testable import TrainingEngine

@Suite struct AdamWTests {
    /// Two parameters and gradients by formula, as the numbers below were made: torch 2.11's AdamW, learning rate 0.01, betas 0.9
    /// and 0.95, decay 0.1 on the first alone, five steps, gradients clipped to a norm of 1.
    final class Problem {
        let matrix, vector: Tensor
        var step = 0
        private(set) var grads: [Tensor] = []

        init(_ dtype: DType) throws {
            matrix = try Tensor((0..<12).map { Self.sine(0.37 * Double($0)) }, shape: [3, 4]).to(dtype: dtype)
            vector = try Tensor((0..<5).map { 2 * Self.cosine(0.53 * Double($0)) }).to(dtype: dtype)
        }

        static func sine(_ x: Double) -> Double { x.isNaN ? x : sinOf(x) }
        static func cosine(_ x: Double) -> Double { sinOf(x + .pi / 2) }
        /// Of the few radians that the problem has.
        private static func sinOf(_ x: Double) -> Double {
            let turn = 2 * Double.pi
            let y = x - turn * (x / turn).rounded()
            var term = y, sum = y
            for k in 1..<20 {
                term *= -y * y / Double(2 * k * (2 * k + 1))
                sum += term
            }
            return sum
        }

        func advance(_ dtype: DType) throws {
            let k = Double(step)
            grads = [
                try Tensor((0..<12).map { 0.5 * Self.cosine(0.11 * Double($0) + k) }, shape: [3, 4]).to(dtype: dtype),
                try Tensor((0..<5).map { 1.5 * Self.sine(0.7 * Double($0) - k) }).to(dtype: dtype),
            ]
            step += 1
        }

        func optimizer(_ change: (inout AdamW.Settings) -> Void = { _ in }) throws -> AdamW {
            var settings = AdamW.Settings(beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1)
            settings.decaysVectors = false
            settings.roundsStochastically = false
            change(&settings)
            let entries = [("matrix", matrix), ("vector", vector)].enumerated().map { index, entry in
                OptimizerParameter(
                    name: entry.0, weight: entry.1, decays: entry.1.rank > 1,
                    gradient: { [unowned self] () throws(TorchError) in self.grads[index] },
                    clear: { () throws(TorchError) in })
            }
            return try AdamW(entries, settings: settings)
        }
    }

    func expectClose(_ tensor: Tensor, _ golden: [Float], tolerance: Float) throws {
        let values = try tensor.values(Float.self)
        #expect(values.count == golden.count)
        for (value, expected) in zip(values, golden) {
            #expect(abs(value - expected) <= tolerance * max(1e-3, abs(expected)), "\(value), not \(expected)")
        }
    }

    @Test func fiveStepsGiveTorchsNumbers() throws {
        let problem = try Problem(.float32), optimizer = try problem.optimizer()
        let norms = [
            2.6338586807250977, 2.5399465560913086, 2.8059723377227783, 2.6787526607513428, 2.5168051719665527,
        ]
        for norm in norms {
            try problem.advance(.float32)
            let result = try optimizer.step(learningRate: 0.01, maxNorm: 1)
            #expect(abs(result.gradNorm - norm) < 1e-5 && result.stepped, "\(result.gradNorm)")
        }
        #expect(optimizer.stepCount == 5)
        try expectClose(
            problem.matrix,
            [
                -0.0212630779, 0.340708971, 0.65413028, 0.876903176, 0.979223549, 0.94761622, 0.786756217, 0.518823862,
                0.180473432, -0.182164058, -0.519739926, -0.786336303,
            ], tolerance: 2e-6)
        try expectClose(
            problem.vector, [2.02592158, 1.72607017, 0.959827006, -0.0683061704, -1.08040798], tolerance: 2e-6)
        let state = Dictionary(uniqueKeysWithValues: try optimizer.state().map { ($0.name, $0.tensor) })
        try expectClose(
            #require(state["exp_avg.matrix"]),
            [
                -0.0154139576, -0.0166969448, -0.0177781042, -0.0186443646, -0.0192852542, -0.0196930282, -0.0198627599,
                -0.0197923928, -0.0194827765, -0.0189376585, -0.018163627, -0.0171700325,
            ], tolerance: 1e-5)
        try expectClose(
            #require(state["exp_avg_sq.matrix"]),
            [
                0.004665785, 0.00444294373, 0.00420332886, 0.00395849114, 0.00372023205, 0.00350003783, 0.00330852275,
                0.00315491878, 0.00304663065, 0.00298887771, 0.00298444508, 0.00303354533,
            ], tolerance: 1e-5)
        #expect(try #require(state["step.vector"]).item() == 5)
    }

    /// As torch's fused AdamW with bfloat16 weights and states: each within one rounding of the last place.
    @Test func whollyInBFloat16ItRoundsAsTorchDoes() throws {
        let problem = try Problem(.bfloat16)
        let optimizer = try problem.optimizer {
            $0.keepsMasters = false
            $0.moments = .bfloat16
        }
        for _ in 0..<5 {
            try problem.advance(.bfloat16)
            _ = try optimizer.step(learningRate: 0.01, maxNorm: 0)
        }
        try expectClose(
            problem.matrix,
            [
                -0.0207519531, 0.341796875, 0.65625, 0.875, 0.984375, 0.94921875, 0.78515625, 0.51953125, 0.181640625,
                -0.182617188, -0.51953125, -0.78515625,
            ], tolerance: 0.008)
        try expectClose(
            problem.vector, [2.015625, 1.734375, 0.95703125, -0.068359375, -1.078125], tolerance: 0.008)
        #expect(optimizer.stateBytes == 17 * 4)
        #expect(try optimizer.state().allSatisfy { $0.name.hasPrefix("step.") || $0.tensor.dtype == .bfloat16 })
    }

    @Test func mastersAreWhatTheWeightsAreRoundedFrom() throws {
        let problem = try Problem(.bfloat16), exact = try Problem(.float32)
        let start = try problem.matrix.to(dtype: .float32)
        try exact.matrix.copy(from: start)
        try exact.vector.copy(from: problem.vector)
        let optimizer = try problem.optimizer(), reference = try exact.optimizer()
        for _ in 0..<20 {
            try problem.advance(.float32)
            try exact.advance(.float32)
            _ = try optimizer.step(learningRate: 1e-5, maxNorm: 1)
            _ = try reference.step(learningRate: 1e-5, maxNorm: 1)
        }
        let master = try #require(try optimizer.state().first { $0.name == "master.matrix" }).tensor
        #expect(try master.equals(exact.matrix))
        #expect(try problem.matrix.equals(exact.matrix.to(dtype: .bfloat16)))
        #expect(optimizer.stateBytes == 17 * 12)
    }

    /// The mean of many stochastic roundings is the number; to the nearest, it never moves.
    @Test(arguments: [true, false]) func smallStepsAddUpByChance(byChance: Bool) throws {
        let weight = try Tensor.ones([20_000], dtype: .bfloat16), grad = try Tensor.ones([20_000], dtype: .bfloat16)
        var settings = AdamW.Settings(weightDecay: 0)
        settings.keepsMasters = false
        settings.roundsStochastically = byChance
        let optimizer = try AdamW(
            [
                OptimizerParameter(
                    name: "w", weight: weight, gradient: { () throws(TorchError) in grad },
                    clear: { () throws(TorchError) in })
            ], settings: settings)
        for _ in 0..<50 { _ = try optimizer.step(learningRate: 1e-5, maxNorm: 0) }
        let mean = try weight.to(dtype: .float64).mean().item()
        // 50 steps of 1e-5; a rounding's deviation is 2^-9 at most, over 20000 elements.
        #expect(byChance ? abs(mean - (1 - 5e-4)) < 1e-4 : mean == 1)
    }

    @Test func aGradientThatIsNotFiniteLeavesNoTrace() throws {
        let problem = try Problem(.bfloat16)
        let optimizer = try problem.optimizer { $0.moments = .int8 }
        try problem.advance(.bfloat16)
        _ = try optimizer.step(learningRate: 0.01, maxNorm: 1)
        let before = try optimizer.state().map { ($0.name, try $0.tensor.cloned()) }
        let weight = try problem.matrix.cloned()
        try problem.advance(.bfloat16)
        try problem.grads[1].fill(.infinity)
        let pending = try optimizer.beginStep(learningRate: 0.01, maxNorm: 1)
        #expect(try pending.result().stepped == false)
        #expect(optimizer.stepCount == 1)
        for (saved, now) in zip(before, try optimizer.state()) { #expect(try saved.1.equals(now.tensor), "\(saved.0)") }
        #expect(try problem.matrix.equals(weight))
    }

    /// Ranks complete the norm: with three more of the same gradients, it is twice as long, and clipped twice as far.
    @Test func theNormMayBeCompletedBeforeTheDecision() throws {
        let problem = try Problem(.float32), whole = try Problem(.float32)
        let optimizer = try problem.optimizer(), reference = try whole.optimizer()
        optimizer.completeSquares = { (squares: Tensor) throws(TorchError) in try squares.scale(by: 4) }
        try problem.advance(.float32)
        try whole.advance(.float32)
        let norm = try reference.step(learningRate: 0.01, maxNorm: 0).gradNorm
        #expect(abs(try optimizer.step(learningRate: 0.01, maxNorm: 1).gradNorm - 2 * norm) < 1e-9)
        let clipped = try #require(try optimizer.state().first { $0.name == "exp_avg.matrix" }).tensor
        let plain = try #require(try reference.state().first { $0.name == "exp_avg.matrix" }).tensor
        try expectClose(clipped, plain.divided(by: 2 * norm + 1e-6).values(Float.self), tolerance: 1e-5)
    }

    @Test func parametersWithoutGradientAreLeftAlone() throws {
        let problem = try Problem(.float32)
        try problem.advance(.float32)
        let grad = problem.grads[0]
        let optimizer = try AdamW(
            [
                OptimizerParameter(
                    name: "a", weight: problem.matrix, gradient: { () throws(TorchError) in grad },
                    clear: { () throws(TorchError) in }),
                OptimizerParameter(
                    name: "b", weight: problem.vector, gradient: { () throws(TorchError) in nil },
                    clear: { () throws(TorchError) in }),
            ], settings: .init())
        let vector = try problem.vector.cloned()
        _ = try optimizer.step(learningRate: 0.01, maxNorm: 1)
        #expect(try problem.vector.equals(vector))
        let steps = try optimizer.state().filter { $0.name.hasPrefix("step.") }.map { try $0.tensor.item() }
        #expect(steps == [1, 0])
    }

    @Test func aStepUnderWayCountsForTheNextOnesNumber() throws {
        let problem = try Problem(.float32), grad = try Tensor.zeros(problem.matrix.shape)
        let optimizer = try AdamW(
            [
                OptimizerParameter(
                    name: "a", weight: problem.matrix, gradient: { () throws(TorchError) in grad },
                    clear: { () throws(TorchError) in })
            ], settings: .init())
        #expect(optimizer.nextStep == 0)
        let pending = try optimizer.beginStep(learningRate: 0.01, maxNorm: 1)
        #expect(optimizer.stepCount == 0 && optimizer.nextStep == 1)
        #expect(try pending.result().stepped)
        #expect(optimizer.stepCount == 1 && optimizer.nextStep == 1)
    }

    @Test func offloadOnTheCPUIsSaidToChangeNothing() throws {
        let optimizer = try Problem(.float32).optimizer {
            $0.offloadsMoments = true
            $0.offloadsMasters = true
        }
        #expect(optimizer.notes.count == 1 && optimizer.notes[0].contains("changes nothing"))
        #expect(optimizer.bytes.host == 0 && optimizer.bytes.device == 17 * 8)
        #expect(try Problem(.float32).optimizer().notes.isEmpty)
    }
}

@Suite struct OffloadedShareTests {
    @Test(arguments: [0, 0.1, 0.25, 0.5, 0.9, 1])
    func aShareOfTheTensorsIsSpreadOverAll(share: Double) {
        let counts = (0..<200).map { [64, 4096, 100, 2048][$0 % 4] }
        let chosen = AdamW.spread(counts, share: share)
        var sum = 0, all = 0
        for (count, isChosen) in zip(counts, chosen) {
            all += count
            if isChosen { sum += count }
            #expect(abs(Double(sum) - share * Double(all)) <= 4096)
        }
        if share == 0 || share == 1 { #expect(chosen.allSatisfy { $0 == (share == 1) }) }
    }
}

/// Gradient sums in the leaves.
@Suite struct GradientSumTests {
    @Test func bfloat16GradientsAreSummedInFloat32AndFreed() throws {
        let leaf = try Tensor([1.0, 2, 3] as [Float]).to(dtype: .bfloat16)
        try leaf.setRequiresGrad()
        try leaf.sumGradients(as: .float32)
        // 1 + 2^-9 has no place in bfloat16; in float32 the sum of both passes does.
        for factor in [1.0, 0x1p-9] {
            try withGrad { try leaf.to(dtype: .float32).multiplied(by: factor).sum().backward() }
            #expect(try leaf.grad() == nil)
        }
        let sum = try #require(try leaf.gradientSum())
        #expect(sum.dtype == .float32)
        #expect(try sum.values(Float.self) == [Float](repeating: 1 + 0x1p-9, count: 3))
        try leaf.clearGradientSum()
        #expect(try leaf.gradientSum() == nil)
        try leaf.endGradientSum()
        try withGrad { try leaf.to(dtype: .float32).sum().backward() }
        #expect(try leaf.grad() != nil && leaf.gradientSum() == nil)
    }

    /// The head's gradient is put into its leaf by a kernel, not by a backward pass.
    @Test func whatIsPutIntoTheLeafIsGatheredOnce() throws {
        let parameter = try PolicyTrainerTests.model(dtype: .bfloat16).parameters[0], leaf = parameter.tensor
        let optimizer = try AdamW(parameters: [parameter], settings: .init())
        for _ in 0..<2 {
            try leaf.setGrad(Tensor.ones(leaf.shape, dtype: .bfloat16))
            try optimizer.gatherGrads()
            #expect(try leaf.grad() == nil)
        }
        #expect(try #require(try leaf.gradientSum()).values(Float.self).allSatisfy { $0 == 2 })
        let norm = try optimizer.step(learningRate: 0.1, maxNorm: 0).gradNorm
        #expect(abs(norm - 2 * Double(leaf.count).squareRoot()) < 1e-6)
        #expect(try leaf.gradientSum() == nil)
    }

    /// A leaf that is used within a checkpointed body and outside gets both shares.
    @Test func sumsTakeSharesOfCheckpointedLayersToo() throws {
        let leaf = try Tensor([0.5, -1, 4] as [Float]).to(dtype: .bfloat16)
        try leaf.setRequiresGrad()
        try leaf.sumGradients(as: .float32)
        try withGrad {
            let x = try Tensor([1, 1, 1] as [Float]).to(dtype: .bfloat16)
            try x.setRequiresGrad()
            let inner = try checkpoint([x]) { [try $0[0].multiplied(by: leaf)] }[0]
            try inner.adding(leaf.multiplied(by: 2.0)).to(dtype: .float32).sum().backward()
        }
        #expect(try #require(try leaf.gradientSum()).values(Float.self) == [3, 3, 3])
    }
}
