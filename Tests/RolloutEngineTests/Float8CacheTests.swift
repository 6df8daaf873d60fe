import Models
import RolloutCore
import RolloutEngine
import TensorCore
import Testing

/// Sampling over a cache in float8.
@Suite struct Float8CacheTests {
    let requests = [[3, 17, 9, 22, 41], [50, 1], [8, 8, 30, 2, 5, 6, 7]].enumerated().map { index, prompt in
        RolloutRequest(
            prompt: prompt.map(Int32.init),
            sampling: SamplingParameters(n: 3, temperature: 1, maxTokens: 12, seed: UInt64(index)))
    }

    func engine(_ change: (inout RolloutEngine.Options) -> Void = { _ in }) throws -> RolloutEngine {
        var options = RolloutEngine.Options(blockSize: 4)
        options.cacheDType = .float8e4m3
        change(&options)
        return RolloutEngine(model: try tinyModel(), options: options)
    }

    @Test func aTokenTakesAQuarterOfFloat32() throws {
        let model = try tinyModel()
        #expect(
            4 * KeyValueCache.bytesPerToken(model, dtype: .float8e4m3) == KeyValueCache.bytesPerToken(model))
        let cache = try KeyValueCache(for: model, slots: 10, dtype: .float8e4m3)
        #expect(cache.byteCount == 10 * KeyValueCache.bytesPerToken(model, dtype: .float8e4m3))
        #expect(cache.dtype == .float8e4m3)
    }

    /// The first token is drawn from a prompt computed whole, exactly; later ones see rounded keys and values, which moves their
    /// log-probabilities a little, and does.
    @Test func whatIsSampledIsNearTheModel() throws {
        let engine = try engine()
        var worst = 0.0, sum = 0.0, count = 0.0
        for (request, samples) in zip(requests, try engine.generate(requests)) {
            for sample in samples {
                #expect(sample.tokens.count == 12)
                let ids = (request.prompt + sample.tokens).map(Int64.init)
                let logProbs = try withNoGrad {
                    try engine.model.logits(
                        engine.model.hiddenStates(
                            ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                            attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
                    ).logSoftmax(1)
                }
                for (index, token) in sample.tokens.enumerated() {
                    let expected = try logProbs.selected(0, request.prompt.count + index - 1).selected(0, Int(token))
                        .item()
                    let gap = abs(expected - Double(sample.logProbs[index]))
                    if index == 0 { #expect(gap < 2e-5) }
                    worst = max(worst, gap)
                    sum += gap
                    count += 1
                }
            }
        }
        #expect(worst > 1e-4 && worst < 0.5 && sum / count < 0.05, "worst \(worst), mean \(sum / count)")
    }

    /// A copy of a block in another place, or away in host memory and back, is the same bytes: samples do not change.
    @Test func preemptionChangesNothing() throws {
        var requests = requests
        for index in requests.indices { requests[index].sampling.n = 1 }
        let wanted = try engine { $0.prefixCaching = false }.generate(requests)
        let tight = try engine {
            $0.prefixCaching = false
            $0.cacheBlocks = 8
            $0.preemption = .swap(bytes: 1 << 16)
        }
        let session = try tight.session(wantedBlocks: 8, longest: 20)
        var found: [Int: GeneratedSample] = [:]
        session.onSample = { request, _, sample in found[request] = sample }
        for (index, request) in requests.enumerated() { try session.add(request, id: index) }
        while try session.advance() {}
        #expect(wanted.indices.map { found[$0] } == wanted.map { $0[0] })
        #expect(session.schedulerStatistics.swappedIn > 0)
    }

    /// Chunks read the rounded keys of those before, so that only prompts computed whole are exact; every answer is still whole.
    @Test func promptsInChunksAndSharedPrefixesAreServed() throws {
        let chunked = try engine { $0.prefillChunk = 2 }
        for samples in try chunked.generate(requests) {
            for sample in samples {
                #expect(sample.tokens.count == 12 && sample.logProbs.allSatisfy { $0.isFinite && $0 <= 0 })
            }
        }
    }
}
