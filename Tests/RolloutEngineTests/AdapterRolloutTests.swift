import Models
import RolloutCore
import RolloutEngine
import TensorCore
import Testing

/// Sampling with a low-rank adapter on the model.
@Suite struct AdapterRolloutTests {
    func adapted(rank: Int = 4, dtype: DType = .float32) throws -> (LlamaModel, LoRA) {
        let model = try tinyModel(dtype: dtype)
        let generator = try RandomGenerator(seed: 8)
        let lora = try model.addAdapter(LoRASettings(rank: rank)) { _, shape in
            try Tensor.randomNormal(shape, generator: generator).multiplied(by: 0.2)
        }
        return (model, lora)
    }

    /// Enough tokens that the decoding layout is made.
    func requests(temperature: Double = 1) -> [RolloutRequest] {
        (0..<4).map { index in
            RolloutRequest(
                prompt: (0..<9).map { Int32(($0 * 5 + index) % 61) },
                sampling: SamplingParameters(n: 4, temperature: temperature, maxTokens: 20, seed: UInt64(index)))
        }
    }

    /// What the sampler recorded, merged or not, is what training computes with the adapter beside the weights.
    @Test(arguments: [false, true]) func recordedLogProbsAreThoseOfTheFullForward(merges: Bool) throws {
        let (model, _) = try adapted()
        let engine = RolloutEngine(model: model, options: .init(mergesAdapter: merges))
        let samples = try engine.generate(requests())
        #expect(model.isPacked)
        model.unpackProjections()
        for (request, answers) in zip(requests(), samples) {
            for answer in answers {
                let ids = (request.prompt + answer.tokens).map(Int64.init)
                let logProbs = try withNoGrad {
                    try model.logits(
                        model.hiddenStates(
                            ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                            attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                    ).logSoftmax(1)
                }
                for (index, token) in answer.tokens.enumerated() {
                    let expected = try logProbs.selected(0, request.prompt.count + index - 1)
                        .selected(0, Int(token)).item()
                    #expect(abs(expected - Double(answer.logProbs[index])) < 5e-5)
                }
            }
        }
    }

    /// A step of the optimizer changes B; the next call samples from what it is now.
    @Test(arguments: [false, true]) func theNextCallSeesTheAdapterAsItIs(merges: Bool) throws {
        let (model, lora) = try adapted()
        let base = try model.parameters.map { try $0.tensor.cloned() }
        let engine = RolloutEngine(model: model, options: .init(mergesAdapter: merges))
        let before = try engine.generate(requests())
        for parameter in lora.parameters where parameter.name.hasSuffix(".lora_B") {
            try withNoGrad { try parameter.tensor.scale(by: 1.01) }
        }
        engine.weightVersion += 1
        let after = try engine.generate(requests())
        #expect(after[0][0].logProbs[0] != before[0][0].logProbs[0])
        #expect(after[0][0].weightVersion == 1 && before[0][0].weightVersion == 0)
        // A fresh engine on the same model agrees: nothing of the old adapter is left.
        let fresh = RolloutEngine(model: model, options: .init(mergesAdapter: merges))
        fresh.weightVersion = 1
        #expect(try fresh.generate(requests()) == after)
        for (before, parameter) in zip(base, model.parameters) { #expect(try parameter.tensor.equals(before)) }
        #expect(!lora.isMerged)
    }

    @Test func mergedAndUnmergedSampleTheSame() throws {
        let (model, lora) = try adapted()
        let beside = try RolloutEngine(model: model).generate(requests(temperature: 0)).map { $0.map(\.tokens) }
        let merged = try RolloutEngine(model: model, options: .init(mergesAdapter: true))
            .generate(requests(temperature: 0)).map { $0.map(\.tokens) }
        #expect(beside == merged)
        let without = try lora.disabled { try RolloutEngine(model: model).generate(requests(temperature: 0)) }
        #expect(without.map { $0.map(\.tokens) } != beside)
        #expect(try RolloutEngine(model: tinyModel()).generate(requests(temperature: 0)) == without)
    }
}
