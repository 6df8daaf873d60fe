import Models
import TensorCore
import Testing

@testable import TrainingEngine

@Suite struct EightBitMomentTests {
    /// Blocks of 256 with a scale each; the relative error within a decade below the block's largest is bounded by the half of a
    /// cell: 0.9 / 2^L / 2 of the decade's top, so of a value v at least 0.45 / 2^L / 0.1 at the decade's low end.
    @Test(arguments: [true, false]) func codesKeepToTheirBound(isSigned: Bool) throws {
        let generator = try RandomGenerator(seed: 5)
        let normal = try Tensor.randomNormal([1000, 3], generator: generator)
        let spread = try Tensor.random([1000, 3], generator: generator).multiplied(by: -12).exp()
        var values = try normal.multiplied(by: spread)
        if !isSigned { values = try values.squared() }
        let (codes, scales) = try values.encodedMoments(isSigned: isSigned)
        #expect(codes.shape == [1000, 3] && codes.dtype == .uint8 && scales.shape == [12])
        let decoded = try codes.decodedMoments(scales: scales, isSigned: isSigned)
        let a = try values.values(Float.self), b = try decoded.values(Float.self)
        let highest = isSigned ? 6 : 7
        for block in stride(from: 0, to: a.count, by: 256) {
            let range = block..<min(a.count, block + 256)
            let largest = range.map { abs(a[$0]) }.max() ?? 0
            for index in range {
                let share = abs(a[index]) / largest
                var top: Float = 1, level = highest
                while level > 0, share <= top / 10 {
                    top /= 10
                    level -= 1
                }
                // The highest code stands for the largest value itself, at the cell's end.
                let cell = 0.9 * top / Float(1 << level)
                #expect(abs(a[index] - b[index]) <= largest * cell * (share > 0.985 ? 1.01 : 0.505) + largest * 1e-8)
                if abs(a[index]) == largest { #expect(b[index] == a[index]) }
                // A second moment that is there is never rounded away.
                if !isSigned, a[index] > 0 { #expect(b[index] > 0) }
            }
        }
    }

    @Test func zerosStayZerosAndTinyBlocksDoNotBlowUp() throws {
        for isSigned in [true, false] {
            let zeros = try Tensor.zeros([300]).encodedMoments(isSigned: isSigned)
            #expect(
                try zeros.codes.decodedMoments(scales: zeros.scales, isSigned: isSigned).values(Float.self).allSatisfy {
                    $0 == 0
                })
            let tiny = try Tensor.full([300], 1e-41).encodedMoments(isSigned: isSigned)
            let back = try tiny.codes.decodedMoments(scales: tiny.scales, isSigned: isSigned).values(Float.self)
            #expect(back.allSatisfy { $0.isFinite && abs(Double($0)) <= 2e-41 })
        }
    }

    /// A quadratic with a gradient of noise: what 8-bit moments learn is what float32 ones do, within 2 % of the way.
    @Test func theLearningCurveIsThatOfFloat32() throws {
        func curve(_ type: MomentType) throws -> (losses: [Double], weight: Tensor) {
            let generator = try RandomGenerator(seed: 11)
            let target = try Tensor.randomNormal([64, 128], generator: generator)
            let weight = try Tensor.zeros([64, 128])
            var grad = weight
            var settings = AdamW.Settings(beta2: 0.99, weightDecay: 0)
            settings.moments = type
            let optimizer = try AdamW(
                [
                    OptimizerParameter(
                        name: "w", weight: weight, gradient: { () throws(TorchError) in grad },
                        clear: { () throws(TorchError) in })
                ], settings: settings)
            var losses: [Double] = []
            for _ in 0..<150 {
                let gap = try weight.subtracting(target)
                losses.append(try gap.squared().mean().item())
                grad = try gap.adding(Tensor.randomNormal([64, 128], generator: generator).multiplied(by: 0.3))
                _ = try optimizer.step(learningRate: 0.02, maxNorm: 0)
            }
            return (losses, weight)
        }
        let exact = try curve(.float32), coded = try curve(.int8)
        for (a, b) in zip(exact.losses, coded.losses) { #expect(abs(a - b) <= 0.02 * exact.losses[0]) }
        #expect(coded.losses[149] < 0.05 * coded.losses[0])
        let gap = try coded.weight.subtracting(exact.weight).squared().mean().item()
        #expect(gap < 0.01 * (try exact.weight.squared().mean().item()))
    }

    func trainer(_ type: MomentType, masters: Bool = true) throws -> PolicyTrainer {
        let model = try PolicyTrainerTests.model(dtype: .bfloat16)
        var settings = AdamW.Settings()
        settings.moments = type
        settings.keepsMasters = masters
        settings.gradDType = masters ? .float32 : .bfloat16
        return PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: settings),
            schedule: LearningRateSchedule(peak: 1e-3), settings: .init(microBatchTokens: 25))
    }

    @Test(arguments: [(MomentType.int8, true), (.bfloat16, false), (.int8, false), (.float32, true)])
    func everyStorageComesBackBitForBit(type: MomentType, masters: Bool) throws {
        let first = try trainer(type, masters: masters)
        for _ in 0..<3 { _ = try first.update(PolicyTrainerTests.samples, loss: PolicyTrainerTests.loss) }
        var saved: [String: Tensor] = [:]
        for (name, tensor) in try first.optimizer.state() { saved[name] = try tensor.cloned() }
        let second = try trainer(type, masters: masters)
        try second.optimizer.restore(stepCount: 3) { try #require(saved[$0]) }
        for trainer in [first, second] {
            _ = try trainer.update(PolicyTrainerTests.samples, loss: PolicyTrainerTests.loss)
        }
        for (a, b) in zip(try first.optimizer.state(), try second.optimizer.state()) {
            #expect(try a.name == b.name && a.tensor.equals(b.tensor), "\(a.name)")
        }
        for (a, b) in zip(first.model.parameters, second.model.parameters) { #expect(try a.tensor.equals(b.tensor)) }
        #expect(second.optimizer.stepCount == 4)
    }

    /// A run may go on with another storage; moments are converted, within the codes' bound.
    @Test(arguments: [(MomentType.float32, MomentType.int8), (.int8, .float32), (.bfloat16, .int8)])
    func aRunMayGoOnWithAnotherStorage(from: MomentType, to: MomentType) throws {
        let weight = try Tensor.ones([70, 70]),
            grad = try Tensor.randomNormal([70, 70], generator: RandomGenerator(seed: 2))
        func optimizer(_ type: MomentType) throws -> AdamW {
            var settings = AdamW.Settings()
            settings.moments = type
            return try AdamW(
                [
                    OptimizerParameter(
                        name: "w", weight: weight, gradient: { () throws(TorchError) in grad },
                        clear: { () throws(TorchError) in })
                ], settings: settings)
        }
        let first = try optimizer(from), second = try optimizer(to)
        _ = try first.step(learningRate: 0.1, maxNorm: 0)
        var saved: [String: Tensor] = [:]
        for (name, tensor) in try first.state() { saved[name] = try tensor.cloned() }
        try second.restore(stepCount: 1) { try #require(saved[$0]) }
        func mean(_ optimizer: AdamW) throws -> Tensor {
            let state = Dictionary(uniqueKeysWithValues: try optimizer.state().map { ($0.name, $0.tensor) })
            let values = try #require(state["exp_avg.w"])
            guard values.dtype == .uint8 else { return try values.to(dtype: .float32) }
            return try values.decodedMoments(scales: #require(state["exp_avg_scale.w"]), isSigned: true)
        }
        let a = try mean(first), b = try mean(second)
        #expect(try a.subtracting(b).squared().mean().item() < 5e-4 * a.squared().mean().item())
    }

    @Test func smallTensorsStayInFloat32AndBytesAreCounted() throws {
        let optimizer = try trainer(.int8).optimizer
        let moments = try optimizer.state().filter { $0.name.hasPrefix("exp_avg") }
        let masters = try optimizer.state().filter { $0.name.hasPrefix("master.") }
        #expect(masters.contains { $0.tensor.count >= 4096 } == moments.contains { $0.tensor.dtype == .uint8 })
        let bytes = (moments + masters).reduce(0) { $0 + $1.tensor.byteCount }
        #expect(optimizer.stateBytes == bytes)
        #expect(MomentType.int8.bytes(5000) == 5000 + 4 * 20 && MomentType.int8.bytes(4095) == 4 * 4095)
    }
}
