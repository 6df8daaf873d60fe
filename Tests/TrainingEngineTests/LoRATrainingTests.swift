import Models
import TensorCore
import Testing

@testable import TrainingEngine

/// Training a low-rank adapter on frozen weights.
@Suite struct LoRATrainingTests {
    typealias Trainer = PolicyTrainerTests

    static func trainer(
        _ settings: LoRASettings = LoRASettings(rank: 4, seed: 1), dtype: DType = .float32, budget: Int = 100_000,
        shares: Bool = true, checkpointing: Bool = false, randomB: Bool = true
    ) throws -> PolicyTrainer {
        let model = try Trainer.model(dtype: dtype)
        model.checkpointing = checkpointing ? .full : .none
        if randomB {
            let generator = try RandomGenerator(seed: 4)
            try model.addAdapter(settings) { _, shape in
                try Tensor.randomNormal(shape, generator: generator).multiplied(by: 0.1)
            }
        } else {
            try model.addAdapter(settings)
        }
        return PolicyTrainer(
            model: model,
            optimizer: try AdamW(parameters: model.trainableParameters, settings: .init(weightDecay: 0)),
            schedule: LearningRateSchedule(peak: 1e-2),
            settings: .init(microBatchTokens: budget, sharesPrefixes: shares, logitsChunk: 4))
    }

    static func gradients(_ trainer: PolicyTrainer) throws -> (loss: Double, grads: [[Float]]) {
        let report = try trainer.accumulate(Trainer.samples, loss: Trainer.loss)
        let grads = try trainer.model.trainableParameters.map { parameter -> [Float] in
            let grad = try #require(try parameter.tensor.grad())
            return try grad.values(Float.self)
        }
        return (report.metrics[0].value, grads)
    }

    func expectClose(_ a: [[Float]], _ b: [[Float]], _ relative: Float = 2e-5) {
        for (a, b) in zip(a, b) {
            let scale = b.map(abs).max() ?? 0
            #expect(scale > 0)
            for (x, y) in zip(a, b) { #expect(abs(x - y) <= relative * scale + 1e-7) }
        }
    }

    /// Packs with shared prefixes, micro-batches and recomputed layers give one loss and one gradient.
    @Test(arguments: [
        (1, true, false), (40, true, false), (100_000, false, false), (100_000, true, true), (40, true, true),
        (30, false, true),
    ])
    func lossAndGradientDoNotDependOnTheSplit(budget: Int, shares: Bool, checkpointing: Bool) throws {
        let (expectedLoss, expected) = try Self.gradients(Self.trainer())
        let (loss, grads) = try Self.gradients(
            Self.trainer(budget: budget, shares: shares, checkpointing: checkpointing))
        #expect(abs(loss - expectedLoss) <= 1e-5 * abs(expectedLoss))
        expectClose(grads, expected)
    }

    /// The gradient of A and B is that of the dense weights, taken through W + s·B·A: dB = s·dW·Aᵀ, dA = s·Bᵀ·dW.
    @Test func gradientsFollowFromThoseOfTheMergedModel() throws {
        let trainer = try Self.trainer(LoRASettings(rank: 4, alpha: 6))
        let (_, grads) = try Self.gradients(trainer)
        let dense = try Trainer.model()
        let denseTrainer = PolicyTrainer(
            model: dense, optimizer: try AdamW(parameters: dense.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 0), settings: trainer.settings)
        try withNoGrad {
            try trainer.model.mergeAdapter()
            for (to, from) in zip(dense.parameters, trainer.model.parameters) { try to.tensor.copy(from: from.tensor) }
            try trainer.model.unmergeAdapter()
        }
        _ = try denseTrainer.accumulate(Trainer.samples, loss: Trainer.loss)
        var whole: [String: Tensor] = [:]
        for parameter in dense.parameters {
            let grad = try #require(try parameter.tensor.grad())
            for (name, part) in try parameter.split(grad) { whole[name] = part }
        }
        let adapters = trainer.model.trainableParameters
        for pair in stride(from: 0, to: adapters.count, by: 2) {
            for (a, b) in zip(try adapters[pair].split(), try adapters[pair + 1].split()) {
                let module = String(a.name.dropLast(".lora_A.weight".count))
                let dW = try #require(whole[module + ".weight"])
                let index = try #require(adapters[pair].parts.firstIndex { $0.name == a.name })
                try withNoGrad {
                    let dA = try b.tensor.transposed().matmul(dW).multiplied(by: 1.5)
                    let dB = try dW.matmul(a.tensor.transposed()).multiplied(by: 1.5)
                    let gradA = try Tensor(grads[pair], shape: adapters[pair].tensor.shape)
                        .narrowed(0, adapters[pair].parts[index].rows)
                    let gradB = try Tensor(grads[pair + 1], shape: adapters[pair + 1].tensor.shape)
                        .narrowed(0, adapters[pair + 1].parts[index].rows)
                    expectClose([try gradA.values(Float.self)], [try dA.values(Float.self)], 1e-4)
                    expectClose([try gradB.values(Float.self)], [try dB.values(Float.self)], 1e-4)
                }
            }
        }
    }

    @Test(arguments: [DType.float32, .bfloat16]) func onlyTheAdapterLearns(dtype: DType) throws {
        let trainer = try Self.trainer(dtype: dtype, randomB: false)
        let model = trainer.model
        let adapter = try #require(model.adapter)
        let base = try model.parameters.map { try $0.tensor.cloned() }
        let sequences = Trainer.samples.map(\.sequence)
        let reference = try trainer.score(sequences).logProbs
        func nll(_ inputs: PolicyLossInputs) throws -> PolicyLossOutput {
            let loss = try inputs.logProbs.multiplied(by: inputs.responseMask).sum()
                .divided(by: Double(inputs.totals.tokens)).negated()
            return PolicyLossOutput(loss: loss, metrics: [LossMetric("loss", try loss.detached())])
        }
        var losses: [Double] = []
        for _ in 0..<25 { losses.append(try trainer.update(Trainer.samples, loss: nll).metrics[0].value) }
        #expect(losses[24] < losses[0] * 0.7)
        for (before, parameter) in zip(base, model.parameters) { #expect(try parameter.tensor.equals(before)) }
        #expect(try trainer.score(sequences).logProbs != reference)
        // The reference policy is what lies below.
        #expect(try adapter.disabled { try trainer.score(sequences).logProbs } == reference)
        // Both moments, and masters where the adapter is not float32 itself.
        #expect(trainer.optimizer.stateBytes == adapter.parameterCount * 4 * (dtype == .float32 ? 2 : 3))
        #expect(try trainer.optimizer.state().count == 4 * adapter.parameters.count)
    }

    /// Recomputed layers see the masks of their first run; another step or micro-batch draws others; scoring draws none.
    @Test func dropoutGoesWithRecomputing() throws {
        let settings = LoRASettings(rank: 4, dropout: 0.3, seed: 6)
        let (loss, grads) = try Self.gradients(Self.trainer(settings))
        let (again, recomputed) = try Self.gradients(Self.trainer(settings, checkpointing: true))
        #expect(loss == again)
        expectClose(recomputed, grads)
        let (plain, _) = try Self.gradients(Self.trainer())
        #expect(abs(plain - loss) > 1e-4)
        var reseeded = settings
        reseeded.seed = 7
        #expect(try Self.gradients(Self.trainer(reseeded)).loss != loss)
        let sequences = Trainer.samples.map(\.sequence)
        #expect(try Self.trainer(settings).score(sequences).logProbs == Self.trainer().score(sequences).logProbs)
    }

    /// Decoding copies of the weights are older than a step, and may hold the adapter: training never reads them.
    @Test(arguments: [false, true]) func packedWeightsStayOutOfTraining(checkpointing: Bool) throws {
        let trainer = try Self.trainer(checkpointing: checkpointing)
        let (loss, grads) = try Self.gradients(Self.trainer(checkpointing: checkpointing))
        try trainer.model.packProjections(rows: 8, merging: true)
        let (packedLoss, packedGrads) = try Self.gradients(trainer)
        #expect(packedLoss == loss && packedGrads == grads)
        try trainer.model.packProjections(rows: 8, merging: true)
        let sequences = Trainer.samples.map(\.sequence)
        #expect(try trainer.score(sequences).logProbs == Self.trainer().score(sequences).logProbs)
    }

    @Test(arguments: [DType.float32, .bfloat16]) func resumingIsBitExact(dtype: DType) throws {
        let settings = LoRASettings(rank: 4, dropout: 0.2, seed: 3)
        let first = try Self.trainer(settings, dtype: dtype)
        for _ in 0..<3 { _ = try first.update(Trainer.samples, loss: Trainer.loss) }
        var saved: [String: Tensor] = [:]
        for (name, tensor) in try first.optimizer.state() { saved[name] = try tensor.cloned() }
        let second = try Self.trainer(settings, dtype: dtype, randomB: false)
        try second.optimizer.restore(stepCount: 3) { name in try #require(saved[name]) }
        for _ in 0..<2 {
            let one = try first.update(Trainer.samples, loss: Trainer.loss)
            let other = try second.update(Trainer.samples, loss: Trainer.loss)
            #expect(one.gradNorm == other.gradNorm)
        }
        for (a, b) in zip(first.model.trainableParameters, second.model.trainableParameters) {
            #expect(try a.tensor.equals(b.tensor), "\(a.name)")
        }
    }

    @Test func onlyTheAdapterIsClipped() throws {
        let trainer = try Self.trainer()
        let (_, grads) = try Self.gradients(trainer)
        let norm = grads.joined().reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
        let report = try Self.trainer().update(Trainer.samples, loss: Trainer.loss)
        #expect(abs(report.gradNorm - norm) < 1e-5 * norm)
    }
}
