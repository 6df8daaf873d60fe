import Models
import TensorCore
import Testing

@testable import TrainingEngine

@Suite struct PolicyTrainerTests {
    static func model(dtype: DType = .float32) throws -> LlamaModel {
        let config = LlamaConfig(
            shape: ModelShape(
                vocabulary: 61, hidden: 32, layers: 2, queryHeads: 4, keyValueHeads: 2, headDim: 16, maxPositions: 128),
            intermediate: 48, normEps: 1e-5, rotary: RotaryFrequencies(headDim: 16, theta: 10000),
            attentionBias: false, tiedEmbeddings: true)
        let weights = try RandomWeights(seed: 3, standardDeviation: 0.3)
        return try LlamaModel(config, ParameterBuilder(source: weights, dtype: dtype, device: .cpu))
    }

    static let prefix: [Int32] = (0..<10).map { $0 * 3 }
    static let samples: [PolicySample] = {
        var samples: [PolicySample] = []
        for (group, tail) in ([[5], [6, 7, 8], [9, 1]] as [[Int32]]).enumerated() {
            for index in 0..<3 {
                let length = 1 + (group * 2 + index * 3) % 5
                let response = (0..<length).map { Int32(($0 * 7 + index * 11 + group) % 61) }
                samples.append(
                    PolicySample(
                        sequence: TrainingSequence(prompt: prefix + tail, response: response),
                        oldLogProbs: response.map { _ in -3 },
                        advantages: response.map { Float($0 % 5) - 2 }, rolloutLogProbs: response.map { _ in -3 }))
            }
        }
        return samples
    }()

    static func loss(_ inputs: PolicyLossInputs) throws -> PolicyLossOutput {
        let ratio = try inputs.logProbs.subtracting(inputs.oldLogProbs).clamped(min: -5, max: 5).exp()
        let entropy = try inputs.entropies.multiplied(by: 0.1)
        let total = try ratio.multiplied(by: inputs.advantages).adding(entropy).multiplied(by: inputs.responseMask)
            .sum().divided(by: Double(inputs.totals.tokens)).negated()
        return PolicyLossOutput(loss: total, metrics: [LossMetric("loss", try total.detached())])
    }

    /// Gradients by parameter and the loss, under a token budget, with or without shared prefixes.
    func gradients(budget: Int, shares: Bool, checkpointing: Bool = false) throws -> (Double, [[Float]]) {
        let model = try Self.model()
        model.checkpointing = checkpointing ? .full : .none
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-3),
            settings: .init(microBatchTokens: budget, sharesPrefixes: shares, logitsChunk: 4))
        let result = try trainer.accumulate(Self.samples, loss: Self.loss)
        let grads = try model.parameters.map { try #require(try $0.tensor.grad()).values(Float.self) }
        return (result.metrics[0].value, grads)
    }

    @Test(arguments: [
        (1, true, false), (25, true, false), (60, true, false), (100_000, false, false), (30, false, false),
        (100_000, true, true), (40, true, true),
    ])
    func lossAndGradientDoNotDependOnTheSplit(budget: Int, shares: Bool, checkpointing: Bool) throws {
        let (expectedLoss, expected) = try gradients(budget: 100_000, shares: true)
        let (loss, grads) = try gradients(budget: budget, shares: shares, checkpointing: checkpointing)
        #expect(abs(loss - expectedLoss) <= 1e-5 * abs(expectedLoss))
        for (a, b) in zip(grads, expected) {
            let scale = b.map(abs).max() ?? 0
            for (x, y) in zip(a, b) { #expect(abs(x - y) <= 2e-5 * scale + 1e-7) }
        }
    }

    @Test func sharedTokensAreThereOnce() {
        let pack = Pack(Self.samples.map(\.sequence))
        let answers = Self.samples.reduce(0) { $0 + $1.sequence.response.count - 1 }
        #expect(pack.tokenCount == 10 + (1 + 3 + 2) + answers)
        #expect(pack.targets.count == Self.samples.reduce(0) { $0 + $1.sequence.response.count })
        #expect(pack.segments[0].parent == nil && pack.segments[0].length == 10)
    }

    @Test(arguments: [1, 14, 20, 33, 1000]) func microBatchesKeepToTheirBudgetAndLoseNothing(budget: Int) {
        let sequences = Self.samples.map(\.sequence)
        let micros = MicroBatches.split(
            sequences, indices: Array(sequences.indices), tokenBudget: budget, sharesPrefixes: true)
        #expect(micros.flatMap { $0 }.sorted() == Array(sequences.indices))
        for micro in micros where micro.count > 1 {
            #expect(Pack(micro.map { sequences[$0] }).tokenCount <= budget)
        }
    }

    @Test func scoringIsTheForwardPassOfTraining() throws {
        let model = try Self.model()
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-3), settings: .init(microBatchTokens: 20))
        let sequences = Self.samples.map(\.sequence)
        let scored = try trainer.score(sequences)
        for (index, sequence) in sequences.enumerated() {
            let ids = (sequence.prompt + sequence.response).map(Int64.init)
            let logP = try withNoGrad {
                try model.hiddenStates(
                    ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)])
                ).linear(model.head).logSoftmax(1)
            }
            for (offset, token) in sequence.response.enumerated() {
                let row = try logP.selected(0, sequence.prompt.count + offset - 1)
                #expect(abs(try row.selected(0, Int(token)).item() - Double(scored.logProbs[index][offset])) < 2e-5)
            }
        }
    }

    /// bfloat16 weights with float32 masters learn: small steps are not lost to rounding.
    @Test(arguments: [DType.float32, .bfloat16]) func aFewStepsLowerTheLoss(dtype: DType) throws {
        let model = try Self.model(dtype: dtype)
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init(weightDecay: 0)),
            schedule: LearningRateSchedule(peak: 3e-3, warmupSteps: 2))
        func nll(_ inputs: PolicyLossInputs) throws -> PolicyLossOutput {
            let loss = try inputs.logProbs.multiplied(by: inputs.responseMask).sum()
                .divided(by: Double(inputs.totals.tokens)).negated()
            return PolicyLossOutput(loss: loss, metrics: [LossMetric("loss", try loss.detached())])
        }
        var losses: [Double] = []
        for _ in 0..<25 { losses.append(try trainer.update(Self.samples, loss: nll).metrics[0].value) }
        #expect(losses[24] < losses[0] * 0.5)
        #expect(trainer.optimizer.stepCount == 25)
    }

    @Test func aGradientThatIsNotFiniteLeavesTheWeightsAlone() throws {
        let model = try Self.model()
        let trainer = PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-3))
        let before = try model.parameters[0].tensor.values(Float.self)
        let report = try trainer.update(Self.samples) { inputs in
            PolicyLossOutput(loss: try inputs.logProbs.sum().multiplied(by: Double.nan), metrics: [])
        }
        #expect(!report.stepped && report.gradNorm.isNaN)
        #expect(try model.parameters[0].tensor.values(Float.self) == before)
        #expect(trainer.optimizer.stepCount == 0)
    }

    /// Leaving sequences without advantage out changes neither the loss nor the gradient.
    @Test func sequencesThatTeachNothingNeedNotBeComputed() throws {
        func run(skips: Bool) throws -> (PolicyStepReport, [[Float]]) {
            var samples = Self.samples
            for index in 3..<6 { samples[index].advantages = samples[index].advantages.map { _ in 0 } }
            let model = try Self.model()
            let trainer = PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
                schedule: LearningRateSchedule(peak: 1e-3), settings: .init(skipsZeroAdvantages: skips))
            let report = try trainer.accumulate(samples) { inputs in
                let loss = try inputs.logProbs.multiplied(by: inputs.advantages).sum()
                    .divided(by: Double(inputs.totals.tokens))
                return PolicyLossOutput(loss: loss, metrics: [LossMetric("loss", try loss.detached())])
            }
            return (report, try model.parameters.map { try #require(try $0.tensor.grad()).values(Float.self) })
        }
        let (all, expected) = try run(skips: false), (some, grads) = try run(skips: true)
        #expect(abs(all.metrics[0].value - some.metrics[0].value) < 1e-6)
        #expect(some.computedTokens < all.computedTokens && some.lossTokens < all.lossTokens)
        for (a, b) in zip(grads, expected) {
            let scale = b.map(abs).max() ?? 0
            for (x, y) in zip(a, b) { #expect(abs(x - y) <= 2e-5 * scale + 1e-7) }
        }
    }

    @Test func optimizerStateComesBackBitForBit() throws {
        func trainer() throws -> PolicyTrainer {
            let model = try Self.model(dtype: .bfloat16)
            return PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
                schedule: LearningRateSchedule(peak: 1e-3))
        }
        let first = try trainer()
        _ = try first.update(Self.samples, loss: Self.loss)
        var saved: [String: Tensor] = [:]
        for (name, tensor) in try first.optimizer.state() { saved[name] = try tensor.cloned() }
        let second = try trainer()
        try second.optimizer.restore(stepCount: 1) { try #require(saved[$0]) }
        _ = try first.update(Self.samples, loss: Self.loss)
        _ = try second.update(Self.samples, loss: Self.loss)
        for (a, b) in zip(first.model.parameters, second.model.parameters) {
            #expect(try a.tensor.equals(b.tensor))
        }
    }

    @Test func schedulesWarmUpAndDecay() {
        let cosine = LearningRateSchedule(peak: 1, warmupSteps: 4, decay: .cosine, totalSteps: 14, minRatio: 0.1)
        #expect((0..<4).map { cosine.rate(step: $0) } == [0.25, 0.5, 0.75, 1])
        #expect(cosine.rate(step: 4) == 1 && abs(cosine.rate(step: 9) - 0.55) < 1e-12)
        #expect(abs(cosine.rate(step: 14) - 0.1) < 1e-12 && abs(cosine.rate(step: 99) - 0.1) < 1e-12)
        let linear = LearningRateSchedule(peak: 2, decay: .linear, totalSteps: 10)
        #expect(linear.rate(step: 5) == 1 && linear.rate(step: 20) == 0)
    }
}
