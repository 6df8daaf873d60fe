import Models
import RolloutCore
import RolloutEngine
import TensorCore
import Testing

/// A two-layer Llama with random weights.
func tinyModel(seed: UInt64 = 3, dtype: DType = .float32) throws -> LlamaModel {
    let config = LlamaConfig(
        shape: ModelShape(
            vocabulary: 61, hidden: 32, layers: 2, queryHeads: 4, keyValueHeads: 2, headDim: 16, maxPositions: 128),
        intermediate: 48, normEps: 1e-5, rotary: RotaryFrequencies(headDim: 16, theta: 10000), tiedEmbeddings: true)
    return try LlamaModel(
        config, ParameterBuilder(source: RandomWeights(seed: seed, standardDeviation: 0.3), dtype: dtype, device: .cpu))
}

@Suite struct RolloutEngineTests {
    let shared: [Int32] = (0..<12).map { Int32($0 * 5 % 61) }

    func requests(n: Int, maxTokens: Int = 9, temperature: Double = 1) -> [RolloutRequest] {
        [[3], [7, 9, 11], [3], [50, 1]].enumerated().map { index, tail in
            RolloutRequest(
                prompt: shared + tail,
                sampling: SamplingParameters(
                    n: n, temperature: temperature, maxTokens: maxTokens, stopTokenIDs: [4], seed: UInt64(index)))
        }
    }

    /// What the sampler recorded is what a forward pass over the whole sequence gives.
    @Test func recordedLogProbsAreThoseOfTheFullForward() throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model)
        let requests = requests(n: 3, temperature: 0.8)
        for (request, samples) in zip(requests, try engine.generate(requests)) {
            #expect(samples.count == 3)
            for sample in samples {
                let ids = (request.prompt + sample.tokens).map(Int64.init)
                let logProbs = try withNoGrad {
                    let hidden = try model.hiddenStates(
                        ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                        attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                    return try hidden.linear(model.head).divided(by: 0.8).logSoftmax(1)
                }
                for (index, token) in sample.tokens.enumerated() {
                    let expected = try logProbs.selected(0, request.prompt.count + index - 1)
                        .selected(0, Int(token)).item()
                    #expect(abs(expected - Double(sample.logProbs[index])) < 2e-5)
                }
                #expect(sample.finishReason == (sample.tokens.last == 4 ? .stop : .length))
                #expect(sample.tokens.dropLast().allSatisfy { $0 != 4 })
            }
        }
    }

    @Test func oneSeedGivesOneAnswerWhateverElseRuns() throws {
        let engine = RolloutEngine(model: try tinyModel())
        let all = requests(n: 2)
        let together = try engine.generate(all).map { $0.map(\.tokens) }
        let narrow = RolloutEngine(model: engine.model, options: .init(maxRows: 2, maxStepTokens: 8))
        for (index, request) in all.enumerated() {
            #expect(try engine.generate([request])[0].map(\.tokens) == together[index])
        }
        #expect(try narrow.generate(all).map { $0.map(\.tokens) } == together)
        #expect(try engine.generate(all).map { $0.map(\.tokens) } == together)
    }

    @Test func theSharedPrefixIsComputedOnce() throws {
        let engine = RolloutEngine(model: try tinyModel(), options: .init(blockSize: 4))
        _ = try engine.generate(requests(n: 5))
        #expect(engine.statistics.prefilledTokens == shared.count + 1 + 3 + 1 + 2)
        #expect(engine.statistics.prefills == 1)
    }

    @Test func greedyIsArgmaxAndStreamingSeesEveryToken() throws {
        let engine = RolloutEngine(model: try tinyModel())
        var seen: [Int: [Int32]] = [:]
        let greedy = requests(n: 1, temperature: 0)
        let samples = try engine.generate(greedy) {
            seen[$0.request, default: []].append($0.token)
            return true
        }
        for (index, sample) in samples.enumerated() { #expect(seen[index] == sample[0].tokens) }
        #expect(samples[0][0].tokens == samples[2][0].tokens)
    }

    @Test func aCallerCanEndASequence() throws {
        let engine = RolloutEngine(model: try tinyModel())
        let samples = try engine.generate(requests(n: 1, maxTokens: 30)) { $0.request != 1 }
        #expect(samples[1][0].finishReason == .abort && samples[1][0].tokens.count == 1)
    }

    @Test func stopTextsEndASequence() throws {
        let engine = RolloutEngine(model: try tinyModel())
        engine.makeDetokenizer = { { token in "<\(token)>" } }
        var request = requests(n: 1, maxTokens: 20, temperature: 0)[0]
        let free = try engine.generate([request])[0][0].tokens
        request.sampling.stop = ["<\(free[2])>"]
        let stopped = try engine.generate([request])[0][0]
        #expect(stopped.finishReason == .stop)
        #expect(stopped.tokens == Array(free.prefix(free.firstIndex(of: free[2])! + 1)))
    }

    @Test func sleepFreesTheCacheAndGenerationGoesOn() throws {
        let engine = RolloutEngine(model: try tinyModel())
        let before = try engine.generate(requests(n: 2))
        try engine.sleep()
        #expect(try engine.generate(requests(n: 2)) == before)
    }

    /// Prompts on both sides of LongRoPE's length run together though they begin alike; none may grow across it.
    @Test func sequencesStayOnTheirSideOfARotarySwitch() throws {
        let rope = RotaryFrequencies.LongRoPE(
            short: [1, 1.1, 1.2, 1.3], long: [2, 3, 4, 8], originalLength: 16, factor: 4)
        let config = LlamaConfig(
            shape: ModelShape(
                vocabulary: 61, hidden: 32, layers: 2, queryHeads: 4, keyValueHeads: 2, headDim: 8, maxPositions: 128),
            intermediate: 48, normEps: 1e-5,
            rotary: RotaryFrequencies(headDim: 8, theta: 10000, scaling: .longRope(rope)))
        let model = try LlamaModel(
            config,
            ParameterBuilder(
                source: RandomWeights(seed: 3, standardDeviation: 0.3), dtype: .float32, device: .cpu))
        let engine = RolloutEngine(model: model)
        let short = RolloutRequest(prompt: shared, sampling: SamplingParameters(n: 2, maxTokens: 4, seed: 1))
        let long = RolloutRequest(
            prompt: shared + shared.reversed(), sampling: SamplingParameters(n: 2, maxTokens: 9, seed: 2))
        let together = try engine.generate([short, long])
        for (request, samples) in zip([short, long], together) {
            #expect(try engine.generate([request])[0].map(\.tokens) == samples.map(\.tokens))
        }
        for (request, samples) in zip([short, long], together) {
            let ids = (request.prompt + samples[0].tokens.dropLast()).map(Int64.init)
            let logProbs = try withNoGrad {
                try model.logits(
                    model.hiddenStates(
                        ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                        attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                ).logSoftmax(1)
            }
            for (index, token) in samples[0].tokens.enumerated() {
                let expected = try logProbs.selected(0, request.prompt.count + index - 1).selected(0, Int(token)).item()
                #expect(abs(expected - Double(samples[0].logProbs[index])) < 2e-5)
            }
        }
        var crossing = short
        crossing.sampling.maxTokens = 5
        #expect(throws: RolloutError.self) { try engine.generate([crossing]) }
    }

    @Test func badRequestsAreRefusedByName() throws {
        let engine = RolloutEngine(model: try tinyModel())
        func code(_ prompt: [Int32], _ sampling: SamplingParameters) -> RolloutError.Code? {
            do { _ = try engine.generate([RolloutRequest(prompt: prompt, sampling: sampling)]) } catch {
                return (error as? RolloutError)?.code
            }
            return nil
        }
        #expect(code([], SamplingParameters()) == .emptyPrompt)
        #expect(code([1], SamplingParameters(n: 0)) == .badRequest)
        #expect(code([99], SamplingParameters()) == .badRequest)
        #expect(code([1], SamplingParameters(maxTokens: 128)) == .tooLong)
        #expect(code([1], SamplingParameters(stop: ["x"])) == .badRequest)
        #expect(code([1], SamplingParameters(topP: 0)) == .badRequest)
        #expect(code([1], SamplingParameters(logitBias: [61: 1])) == .badRequest)
    }
}
