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

    /// Decoding into a cache of float32 whose keys and values are rounded before they get there.
    struct RoundingAttention: AttentionBackend {
        let inner: DecodeAttention
        func attend(
            layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind
        ) throws -> Tensor {
            try inner.attend(
                layer: layer, query: query, key: Float8CacheTests.rounded(key),
                value: Float8CacheTests.rounded(value), kind: kind)
        }
        func extents() throws -> [SequenceExtent] { try inner.extents() }
    }

    static func rounded(_ x: Tensor) throws -> Tensor { try x.saturatedToFloat8().to(dtype: .float32) }

    /// Prompts attend to their own keys and values as they are; decoded tokens see everything rounded, their own too.
    @Test func whatIsSampledIsWhatRoundedKeysAndValuesGive() throws {
        let engine = try engine(), model = engine.model
        for (request, samples) in zip(requests, try engine.generate(requests)) {
            let prompt = request.prompt.map(Int64.init)
            for sample in samples {
                #expect(sample.tokens.count == 12)
                let cache = try KeyValueCache(for: model, slots: prompt.count + 12)
                let slots = try Tensor.arange(0..<prompt.count)
                try withNoGrad {
                    var hidden = try model.hiddenStates(
                        ids: Tensor(prompt), positions: slots,
                        attention: PrefillAttention(
                            cache: cache, segments: [PackedSegment(start: 0, length: prompt.count)], slots: slots))
                    for pool in cache.keys + cache.values {
                        try pool.storeRows(slots, Self.rounded(pool.storedRows(slots, as: .float32)))
                    }
                    for (index, token) in sample.tokens.enumerated() {
                        let last = hidden.size(0) - 1
                        let logProb = try model.logits(hidden.narrowed(0, last..<last + 1)).logSoftmax(1)
                            .selected(0, 0).selected(0, Int(token)).item()
                        #expect(abs(logProb - Double(sample.logProbs[index])) < 2e-5)
                        let place = prompt.count + index
                        hidden = try model.hiddenStates(
                            ids: Tensor([Int64(token)]), positions: Tensor([Int64(place)]),
                            attention: RoundingAttention(
                                inner: DecodeAttention(
                                    cache: cache,
                                    slotTable: Tensor((0...Int32(place)).map { $0 }, shape: [1, place + 1]),
                                    lengths: Tensor([Int32(place + 1)]), newSlots: Tensor([Int64(place)]))))
                    }
                }
            }
        }
    }

    @Test func whatIsSampledDiffersFromTheModelsOwn() throws {
        let rounded = try engine().generate(requests), full = try engine { $0.cacheDType = nil }.generate(requests)
        // The same first token, drawn before anything rounded is read, and then not.
        for (a, b) in zip(rounded.flatMap { $0 }, full.flatMap { $0 }) {
            #expect(a.tokens[0] == b.tokens[0] && a.logProbs[0] == b.logProbs[0])
        }
        #expect(rounded.map { $0.map(\.logProbs) } != full.map { $0.map(\.logProbs) })
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
        for (index, samples) in wanted.enumerated() {
            let sample = try #require(found[index])
            #expect(sample.tokens == samples[0].tokens)
            // Other numbers of rows at a time sum in other orders.
            for (a, b) in zip(sample.logProbs, samples[0].logProbs) { #expect(abs(a - b) < 1e-5) }
        }
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
