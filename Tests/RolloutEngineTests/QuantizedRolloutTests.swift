import RolloutCore
import RolloutEngine
import TensorCore
import Testing

@testable import Models

/// Sampling from quantised copies of the weights.
@Suite struct QuantizedRolloutTests {
    static let schemes: [WeightQuantization] = [.int8PerChannel, .int4(group: 32)]

    func requests(temperature: Double = 0) -> [RolloutRequest] {
        (0..<5).map { index in
            let length = 3 + index * 4
            let prompt = (0..<length).map { (place: Int) -> Int32 in Int32((place * 5 + index) % 61) }
            return RolloutRequest(
                prompt: prompt,
                sampling: SamplingParameters(n: 2, temperature: temperature, maxTokens: 20, seed: UInt64(index)))
        }
    }

    /// A model whose weights are what the copies of `model` stand for.
    func dequantised(_ model: LlamaModel, dtype: DType = .float32) throws -> LlamaModel {
        let other = try tinyModel(dtype: dtype)
        try withNoGrad {
            for (mine, theirs) in zip(model.projections, other.projections) {
                if let quantized = mine.quantized { try theirs.weight.copy(from: quantized.dequantized()) }
            }
        }
        return other
    }

    @Test(arguments: schemes) func greedyAnswersAreThoseOfTheDequantisedModel(scheme: WeightQuantization) throws {
        let model = try tinyModel()
        let before = try model.parameters.map { try $0.tensor.cloned() }
        let samples = try RolloutEngine(model: model, options: .init(quantization: scheme)).generate(requests())
        #expect(model.isQuantized)
        let other = try dequantised(model)
        for (request, answers) in zip(requests(), samples) {
            // The plain loop: the whole sequence again for every token.
            var ids = request.prompt.map(Int64.init), tokens: [Int32] = [], logProbs: [Double] = []
            try withNoGrad {
                for _ in 0..<request.sampling.maxTokens {
                    let row = try other.logits(
                        other.hiddenStates(
                            ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                            attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                    ).logSoftmax(1).selected(0, ids.count - 1)
                    let best = try row.argmax(0).itemInt()
                    tokens.append(Int32(best))
                    logProbs.append(try row.selected(0, best).item())
                    ids.append(Int64(best))
                }
            }
            for answer in answers {
                #expect(answer.tokens == tokens)
                for (mine, wanted) in zip(answer.logProbs, logProbs) { #expect(abs(Double(mine) - wanted) < 1e-4) }
            }
        }
        for (before, parameter) in zip(before, model.parameters) { #expect(try parameter.tensor.equals(before)) }
    }

    /// The copies are of the weights as they were: a new version drops them, and the next call makes them anew.
    @Test func aNewWeightVersionDropsTheCopies() throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model, options: .init(quantization: .int8PerChannel))
        let before = try engine.generate(requests(temperature: 1))
        #expect(try engine.generate(requests(temperature: 1)) == before)
        try withNoGrad { try model.projections[0].weight.scale(by: 1.5) }
        engine.weightVersion += 1
        #expect(!model.isQuantized)
        let after = try engine.generate(requests(temperature: 1))
        #expect(model.isQuantized && after.map { $0.map(\.logProbs) } != before.map { $0.map(\.logProbs) })
        let fresh = RolloutEngine(model: model, options: .init(quantization: .int8PerChannel))
        fresh.weightVersion = 1
        #expect(try fresh.generate(requests(temperature: 1)) == after)
        try engine.sleep()
        #expect(!model.isQuantized)
    }

    /// An engine that does not quantise samples from the weights even where another's copies lie beside them.
    @Test func enginesDoNotShareTheCopies() throws {
        let model = try tinyModel()
        let wanted = try RolloutEngine(model: try tinyModel()).generate(requests())
        _ = try RolloutEngine(model: model, options: .init(quantization: .int4())).generate(requests())
        #expect(
            try RolloutEngine(model: model).generate(requests()).map { $0.map(\.tokens) }
                == wanted.map { $0.map(\.tokens) })
    }

    @Test(arguments: [false, true]) func adaptersAreSampledWith(merges: Bool) throws {
        let model = try tinyModel()
        let generator = try RandomGenerator(seed: 8)
        try model.addAdapter(LoRASettings(rank: 4)) { _, shape in
            try Tensor.randomNormal(shape, generator: generator).multiplied(by: 0.2)
        }
        let engine = RolloutEngine(model: model, options: .init(mergesAdapter: merges, quantization: .int8PerChannel))
        let samples = try engine.generate(requests(temperature: 1))
        for (request, answers) in zip(requests(), samples) {
            let answer = answers[0], ids = (request.prompt + answer.tokens).map(Int64.init)
            let logProbs = try withNoGrad {
                try model.logits(
                    model.hiddenStates(
                        ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                        attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                ).logSoftmax(1)
            }
            // The weights and the adapter in full precision agree with what was sampled to within 8 bits.
            let expected = try logProbs.selected(0, request.prompt.count - 1).selected(0, Int(answer.tokens[0])).item()
            #expect(abs(expected - Double(answer.logProbs[0])) < 0.3)
        }
    }
}
