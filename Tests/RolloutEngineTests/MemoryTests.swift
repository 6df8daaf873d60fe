import Models
import RolloutCore
import TensorCore
import Testing

@testable import RolloutEngine

/// Sleeping, waking, and how much memory the cache may take.
@Suite struct MemoryTests {
    let request = RolloutRequest(
        prompt: (0..<20).map { Int32($0) }, sampling: SamplingParameters(n: 4, maxTokens: 12, seed: 5))

    @Test(arguments: [nil, WeightQuantization.int8PerChannel])
    func whatSleepFreesWakeTakesAgain(quantization: WeightQuantization?) throws {
        let model = try tinyModel()
        let engine = RolloutEngine(
            model: model, options: .init(preemption: .swap(bytes: 1 << 16), quantization: quantization))
        #expect(try engine.wake() == MemoryChange())
        #expect(engine.isAsleep)
        let before = try engine.generate([request])
        let blocks = try #require(engine.runner?.blockCount)
        let cache = engine.lastWake
        #expect(cache.bytes > engine.statistics.cacheBytes && cache.milliseconds > 0)

        try engine.prepare(rows: 256, steps: 64)
        let copies = model.copyBytes
        #expect(copies > 0)
        let slept = try engine.sleep()
        #expect(slept.bytes == cache.bytes + copies)
        #expect(engine.isAsleep && model.copyBytes == 0 && engine.hostCache == nil)
        #expect(try engine.sleep().bytes == 0)

        let woken = try engine.wake()
        #expect(woken.bytes == cache.bytes && woken == engine.lastWake)
        #expect(engine.runner?.blockCount == blocks)
        #expect(try engine.wake() == MemoryChange())
        #expect(try engine.generate([request]) == before)
        // It was there already.
        #expect(engine.lastWake == woken)
    }

    @Test func generationWakesByItselfAndSaysWhatItTook() throws {
        let engine = RolloutEngine(model: try tinyModel())
        _ = try engine.generate([request])
        let first = engine.lastWake
        try engine.sleep()
        var longer = request
        longer.sampling.maxTokens = 90
        _ = try engine.generate([longer])
        #expect(engine.lastWake.bytes > first.bytes)
    }

    @Test func aSessionUnderWayKeepsTheCache() throws {
        let engine = RolloutEngine(model: try tinyModel())
        let session = try engine.session(wantedBlocks: 20, longest: 64)
        try session.add(request, id: 1)
        #expect(try session.advance())
        let error = #expect(throws: RolloutError.self) { try engine.sleep() }
        #expect(error?.code == .badRequest)
        session.abort(1)
        while try session.advance() {}
        try engine.sleep()
        #expect(engine.isAsleep)
    }

    /// As where a trainer brings the weights together for a rollout alone: other memory every time.
    @Test func weightsThatComeAndGoAreReadWhereTheyLie() throws {
        let model = try tinyModel()
        let engine = RolloutEngine(model: model)
        try engine.prepare(rows: 256, steps: 64)
        let before = try engine.generate([request])
        #expect(model.copyBytes > 0)
        let kept = try model.parameters.map { try $0.tensor.detached().cloned() }
        try engine.forgetWeights()
        #expect(model.copyBytes == 0 && !engine.isAsleep && engine.graphCount == 0)
        for parameter in model.parameters { try parameter.tensor.releaseStorage() }
        for (parameter, values) in zip(model.parameters, kept) {
            try withNoGrad { try parameter.tensor.allocateStorage(values.shape).copy(from: values) }
        }
        #expect(try engine.generate([request]) == before)

        let session = try engine.session(wantedBlocks: 20, longest: 64)
        try session.add(request, id: 1)
        #expect(try session.advance())
        #expect(throws: RolloutError.self) { try engine.forgetWeights() }
        session.abort(1)
        while try session.advance() {}
    }

    /// The share is of what is free, not of the whole device.
    @Test func theBudgetIsAShareOfFreeMemory() throws {
        var budget = MemoryBudget(free: 1000, total: 8000, fraction: 0.5, activations: 100)
        #expect(try budget.blocks(of: 10) == 39)
        budget.total = 80000
        #expect(try budget.blocks(of: 10) == 39)
        budget.fraction = 1
        #expect(try budget.blocks(of: 10) == 89)
        budget = MemoryBudget(free: 300 << 20, total: 8000 << 20, fraction: 0.5, activations: 200 << 20)
        let error = #expect(throws: RolloutError.self) { try budget.blocks(of: 1 << 20) }
        #expect(error?.code == .outOfSlots)
        for part in ["300 of 8000 MiB are free", "gpu_memory_utilization 0.5 gives 150", "activations need 200"] {
            #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
        }
    }

    @Test func promptsThatAreNotCutMustFitAStep() throws {
        let model = try tinyModel()
        let narrow = RolloutEngine(model: model, options: .init(maxRows: 4, maxStepTokens: 19, cutsPrompts: false))
        let error = #expect(throws: RolloutError.self) { try narrow.generate([request]) }
        #expect(error?.code == .tooLong && error?.message.contains("enable_chunked_prefill") == true)
        let requests = (0..<6).map { seed in
            var next = request
            next.prompt = Array(request.prompt.prefix(7 + 2 * seed))
            next.sampling.seed = UInt64(seed)
            return next
        }
        let whole = RolloutEngine(model: model, options: .init(maxRows: 8, maxStepTokens: 20, cutsPrompts: false))
        #expect(
            try whole.generate(requests).map { $0.map(\.tokens) }
                == RolloutEngine(model: model).generate(requests).map { $0.map(\.tokens) })
        #expect(whole.statistics.prefills > 1)
    }

    /// Drafts are tokens and draws beyond one a row, and change none.
    @Test func draftsChangeNoToken() throws {
        let model = try tinyModel()
        let requests = (0..<5).map { seed in
            RolloutRequest(
                prompt: (0..<18).map { Int32($0 % 3 + seed) },
                sampling: SamplingParameters(n: 2, temperature: seed < 2 ? 0 : 0.4, maxTokens: 40, seed: UInt64(seed)))
        }
        let plain = RolloutEngine(model: model, options: .init(maxRows: 6))
        let drafting = RolloutEngine(
            model: model, options: .init(maxRows: 6, speculation: Speculation(maxDraft: 5, minNgram: 1, maxNgram: 3)))
        #expect(
            try drafting.generate(requests).map { $0.map(\.tokens) }
                == plain.generate(requests).map { $0.map(\.tokens) })
        #expect(drafting.statistics.decodeSteps < plain.statistics.decodeSteps)
    }
}
