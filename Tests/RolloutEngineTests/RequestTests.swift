import Models
import RolloutCore
import RolloutEngine
import TensorCore
import Testing

/// What requests may ask for besides tokens.
@Suite struct RequestTests {
    static let prompt: [Int32] = (0..<23).map { $0 * 7 % 61 }

    static func logits(_ model: LlamaModel, _ ids: [Int32]) throws -> Tensor {
        try withNoGrad {
            try model.logits(
                model.hiddenStates(
                    ids: Tensor(ids.map(Int64.init)), positions: Tensor.arange(0..<ids.count),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)])))
        }
    }

    /// A whole forward pass a token, the next one's logits adjusted by hand.
    static func plain(_ model: LlamaModel, _ sampling: SamplingParameters, sample: Int) throws -> [Int32] {
        var tokens: [Int32] = []
        while tokens.count < sampling.maxTokens, tokens.last.map({ !sampling.ends(at: $0) }) ?? true {
            var row = try logits(model, prompt + tokens).selected(0, prompt.count + tokens.count - 1).values(Float.self)
            for token in 0..<Int32(61) {
                let count = tokens.count { $0 == token }, place = Int(token)
                if prompt.contains(token) || count > 0 {
                    let penalty = Float(sampling.repetitionPenalty)
                    row[place] = row[place] > 0 ? row[place] / penalty : row[place] * penalty
                }
                if count > 0 {
                    row[place] -= Float(sampling.presencePenalty + Double(count) * sampling.frequencyPenalty)
                }
                row[place] += sampling.logitBias[token] ?? 0
                if tokens.count < sampling.minTokens, sampling.ends(at: token) { row[place] = -.infinity }
            }
            let draw = RowSampling(
                temperature: sampling.temperature, uniform: sampling.uniform(sample: sample, position: tokens.count))
            tokens.append(Int32(try Tensor(row, shape: [1, 61]).sample([draw]).tokens[0]))
        }
        return tokens
    }

    static let parameters: [SamplingParameters] = [
        SamplingParameters(n: 2, temperature: 0, repetitionPenalty: 1.3, maxTokens: 12),
        SamplingParameters(n: 2, presencePenalty: 1.5, frequencyPenalty: 0.7, maxTokens: 12, seed: 3),
        SamplingParameters(n: 3, logitBias: [5: 3, 7: -.infinity], maxTokens: 9, stopTokenIDs: [5], seed: 4),
        SamplingParameters(n: 3, maxTokens: 20, minTokens: 8, stopTokenIDs: Set(0..<30), seed: 5),
        SamplingParameters(n: 2, maxTokens: 11, stopTokenIDs: Set(0..<30), ignoreEOS: true, seed: 6),
    ]

    @Test(arguments: parameters) func drawsFollowTheAdjustedLogits(sampling: SamplingParameters) throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model, options: .init(maxStepTokens: 16, blockSize: 4))
        // Beside others that adjust nothing.
        let other = RolloutRequest(prompt: [3, 9], sampling: SamplingParameters(n: 2, maxTokens: 5, seed: 1))
        let samples = try engine.generate([other, RolloutRequest(prompt: Self.prompt, sampling: sampling), other])
        for (index, sample) in samples[1].enumerated() {
            #expect(try sample.tokens == Self.plain(model, sampling, sample: index))
            if sampling.ignoreEOS { #expect(sample.tokens.count == sampling.maxTokens) }
            #expect(sample.tokens.count >= sampling.minTokens)
        }
        let alone = try engine.generate([other])[0].map(\.tokens)
        #expect(samples[0].map(\.tokens) == alone && samples[2].map(\.tokens) == alone)
    }

    @Test func theLikeliestTokensComeWithEachDraw() throws {
        let model = try tinyModel()
        let sampling = SamplingParameters(n: 2, temperature: 0.7, maxTokens: 6, logProbs: 3, seed: 2)
        let none = RolloutRequest(prompt: [4, 4], sampling: SamplingParameters(maxTokens: 3))
        let samples = try RolloutEngine(model: model).generate([
            none, RolloutRequest(prompt: Self.prompt, sampling: sampling),
        ])
        #expect(samples[0][0].topLogProbs.isEmpty)
        for sample in samples[1] {
            #expect(sample.topLogProbs.count == sample.tokens.count)
            let all = try Self.logits(model, Self.prompt + sample.tokens).divided(by: 0.7).logSoftmax(1)
            for (place, top) in sample.topLogProbs.enumerated() {
                let row = try all.selected(0, Self.prompt.count + place - 1).values(Float.self)
                let order = row.indices.sorted { row[$0] > row[$1] }.prefix(3)
                #expect(top.map { Int($0.token) } == Array(order))
                for (one, index) in zip(top, order) { #expect(abs(one.logProb - row[index]) < 2e-5) }
            }
        }
    }

    @Test(arguments: [nil, 5]) func thePromptsLogProbsAreThoseOfTheFullForward(chunk: Int?) throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model, options: .init(prefillChunk: chunk, blockSize: 4))
        let sampling = SamplingParameters(n: 2, maxTokens: 4, promptLogProbs: 2, seed: 2)
        let request = RolloutRequest(prompt: Self.prompt, sampling: sampling)
        let all = try Self.logits(model, Self.prompt).logSoftmax(1)
        for sample in try engine.generate([request, request]).flatMap({ $0 }) {
            #expect(sample.promptLogProbs.map(\.token) == Array(Self.prompt.dropFirst()))
            for (place, found) in sample.promptLogProbs.enumerated() {
                let row = try all.selected(0, place).values(Float.self)
                #expect(abs(found.logProb - row[Int(found.token)]) < 2e-5)
                #expect(found.top.count == 2 && abs(found.top[0].logProb - (row.max() ?? 0)) < 2e-5)
            }
        }
        let session = try engine.session(wantedBlocks: 40, longest: 40)
        #expect(throws: RolloutError.self) { try session.add(request, id: 0) }
    }
}
