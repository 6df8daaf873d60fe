import Models
import TensorCore
import Testing

@testable import TrainingEngine

/// Training beside a sampler that reads quantised copies of the weights.
@Suite struct QuantizedSamplingTests {
    typealias Trainer = PolicyTrainerTests

    static func trainer(checkpointing: Bool) throws -> PolicyTrainer {
        let model = try Trainer.model()
        model.checkpointing = checkpointing ? .full : .none
        return PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-2), settings: .init(microBatchTokens: 40))
    }

    /// Steps and scores are bit for bit those of a training without: the copies are made, sampled from and dropped in between.
    @Test(arguments: [false, true]) func stepsAreBitIdenticalToTrainingWithout(checkpointing: Bool) throws {
        let plain = try Self.trainer(checkpointing: checkpointing)
        let sampled = try Self.trainer(checkpointing: checkpointing)
        let sequences = Trainer.samples.map(\.sequence)
        for scheme in [WeightQuantization.int8PerChannel, .int4()] {
            try sampled.model.quantizeProjections(scheme, rows: 8)
            try withNoGrad {
                _ = try sampled.model.samplingQuantized {
                    try sampled.model.hiddenStates(
                        ids: Tensor([1, 2, 3] as [Int64]), positions: Tensor.arange(0..<3),
                        attention: PackedAttention(segments: [PackedSegment(start: 0, length: 3)]))
                }
            }
            #expect(try sampled.score(sequences).logProbs == plain.score(sequences).logProbs)
            try sampled.model.quantizeProjections(scheme, rows: 8)
            let one = try plain.update(Trainer.samples, loss: Trainer.loss)
            let other = try sampled.update(Trainer.samples, loss: Trainer.loss)
            #expect(one.gradNorm == other.gradNorm)
            #expect(!sampled.model.isQuantized)
        }
        for (a, b) in zip(plain.model.parameters, sampled.model.parameters) { #expect(try a.tensor.equals(b.tensor)) }
    }
}
