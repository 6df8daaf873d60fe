import Models
import RolloutCore
import RolloutEngine
import TensorCore
import Testing

/// How a batch is scheduled changes no token: whatever is cached, cut, shared, put aside or computed again.
@Suite struct SchedulingTests {
    static let prompts: [[Int32]] = (0..<7).map { prompt in
        (0..<Int32(5 + 6 * prompt)).map { ($0 * 7 + (prompt < 4 ? 0 : Int32(prompt))) % 61 }
    }

    static func requests(temperature: Double) -> [RolloutRequest] {
        prompts.enumerated().map { index, prompt in
            RolloutRequest(
                prompt: prompt,
                sampling: SamplingParameters(
                    n: 1 + index % 3, temperature: temperature, maxTokens: 6 + 3 * index, stopTokenIDs: [4],
                    seed: UInt64(index)))
        }
    }

    struct Case: CustomTestStringConvertible {
        let name: String
        let options: RolloutEngine.Options
        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case(name: "one row at a time", options: .init(maxRows: 1)),
        Case(name: "three rows, few tokens a step", options: .init(maxRows: 3, maxStepTokens: 7, blockSize: 4)),
        Case(name: "chunks of five", options: .init(prefillChunk: 5, blockSize: 4, prefixCaching: false)),
        Case(name: "shared prefixes", options: .init(blockSize: 2)),
        Case(name: "shared prefixes, chunks", options: .init(maxStepTokens: 9, prefillChunk: 3, blockSize: 4)),
        Case(
            name: "drafts",
            options: .init(blockSize: 4, speculation: Speculation(maxDraft: 3, minNgram: 1, maxNgram: 3))),
        Case(
            name: "drafts, chunks and preemption",
            options: .init(
                maxStepTokens: 12, prefillChunk: 5, blockSize: 4, cacheBlocks: 24,
                speculation: Speculation(maxDraft: 4, minNgram: 1, maxNgram: 2))),
        Case(name: "recompute", options: .init(blockSize: 4, cacheBlocks: 24)),
        Case(name: "recompute without sharing", options: .init(blockSize: 4, prefixCaching: false, cacheBlocks: 22)),
        Case(
            name: "swap",
            options: .init(blockSize: 4, prefixCaching: false, cacheBlocks: 22, preemption: .swap(bytes: 1 << 20))),
        Case(
            name: "swap to little room",
            options: .init(blockSize: 4, cacheBlocks: 20, preemption: .swap(bytes: 12 * 4 * 512))),
    ]

    /// The plain loop: a whole forward pass for each token.
    static func plain(_ model: LlamaModel, _ request: RolloutRequest, sample: Int) throws -> [Int32] {
        var ids = request.prompt.map(Int64.init), tokens: [Int32] = []
        while tokens.count < request.sampling.maxTokens, tokens.last != 4 {
            let hidden = try withNoGrad {
                try model.hiddenStates(
                    ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
            }
            let logits = try model.logits(hidden.narrowed(0, ids.count - 1..<ids.count))
            let row = RowSampling(
                temperature: request.sampling.temperature,
                uniform: request.sampling.uniform(sample: sample, position: tokens.count))
            let token = try logits.sample([row]).tokens[0]
            ids.append(token)
            tokens.append(Int32(token))
        }
        return tokens
    }

    @Test(arguments: cases, [0.0, 1.0]) func scheduleChangesNoToken(test: Case, temperature: Double) throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model, options: test.options)
        let requests = Self.requests(temperature: temperature)
        for (request, samples) in zip(requests, try engine.generate(requests)) {
            for (index, sample) in samples.enumerated() {
                #expect(try sample.tokens == Self.plain(model, request, sample: index))
                #expect(sample.logProbs.count == sample.tokens.count)
            }
        }
    }

    @Test func casesPreemptAndShareAsTheirNamesSay() throws {
        func statistics(_ name: String) throws -> SchedulerStatistics {
            let options = try #require(Self.cases.first { $0.name == name }).options
            let session = try RolloutEngine(model: tinyModel(), options: options)
                .session(wantedBlocks: 400, longest: 100)
            for (id, request) in Self.requests(temperature: 1).enumerated() { try session.add(request, id: id) }
            while try session.advance() {}
            return session.schedulerStatistics
        }
        #expect(try statistics("recompute without sharing").recomputed > 0)
        #expect(try statistics("swap").swappedIn > 0)
        #expect(try statistics("shared prefixes").foundTokens > 20)
        let drafts = try statistics("drafts")
        #expect(drafts.drafted > drafts.accepted && drafts.accepted > 0)
    }

    /// New weights in the middle: what runs goes on, and each token tells what drew it.
    @Test func generationGoesOnUnderNewWeights() throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model, options: .init(blockSize: 4))
        let session = try engine.session(wantedBlocks: 400, longest: 100)
        var finished: [GeneratedSample] = []
        session.onSample = { _, _, sample in finished.append(sample) }
        let request = RolloutRequest(
            prompt: Self.prompts[3], sampling: SamplingParameters(n: 2, maxTokens: 9, seed: 5))
        try session.add(request, id: 0)
        for _ in 0..<4 { _ = try session.advance() }
        let head = model.parameters[0].tensor
        try withNoGrad { try head.scale(by: 1.5) }
        engine.weightVersion = 8
        // What the old weights computed is not found by a prompt that comes later.
        try session.add(request, id: 1)
        while try session.advance() {}
        #expect(finished.count == 4)
        #expect(finished.contains { $0.weightVersions == [0, 0, 0, 0, 8, 8, 8, 8, 8] && $0.weightVersion == 0 })
        #expect(finished.filter { Set($0.weightVersions) == [8] }.count == 2)
        let fresh = try RolloutEngine(model: model).generate([request])[0].map(\.tokens)
        #expect(Set(fresh) == Set(finished.filter { Set($0.weightVersions) == [8] }.map(\.tokens)))
    }

    @Test func samplesComeOutAsTheyFinishAndCanBeAborted() throws {
        let session = try RolloutEngine(model: tinyModel()).session(wantedBlocks: 100, longest: 100)
        var order: [Int] = [], aborted: [GeneratedSample] = []
        session.onSample = { request, _, sample in
            order.append(request)
            if sample.finishReason == .abort { aborted.append(sample) }
        }
        for (id, count) in [30, 3, 8].enumerated() {
            try session.add(
                RolloutRequest(prompt: [3, 5], sampling: SamplingParameters(maxTokens: count, seed: 9)), id: id)
        }
        while order.count < 2 { _ = try session.advance() }
        session.abort(0)
        #expect(order == [1, 2, 0])
        #expect(aborted.count == 1 && aborted[0].tokens.count == 8)
        #expect(try session.advance() == false)
    }
}
