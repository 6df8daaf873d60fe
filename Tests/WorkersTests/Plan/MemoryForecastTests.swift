import Config
import Models
import TensorCore
import Testing
import TrainingEngine

@testable import Workers

@Suite struct MemoryForecastTests {
    static func model(_ name: String) throws -> PlanModel {
        try PlanModel(#require(BenchmarkShape.known[name]), name: name)
    }
    static let h200 = PlanDevice(named: "h200")!

    /// A batch of rows that learns and nothing else, as the training benchmark has it.
    static func rows(_ count: Int, _ length: Int, _ mode: ActivationCheckpointing = .full) -> PlanWork {
        var work = PlanWork()
        (work.prompts, work.samples, work.promptTokens, work.responseTokens) = (count, 1, 1, length - 1)
        (work.miniBatch, work.microBatchTokens, work.generates) = (count, count * length, false)
        work.checkpointing = mode
        return work
    }

    /// Published counts of parameters, times the bytes of each kind.
    @Test(arguments: [("qwen2-7b", 7_615_616_512), ("qwen2.5-0.5b", 494_032_768), ("smollm2-135m", 134_515_008)])
    func statesOfKnownModelsAreExact(name: String, parameters: Int) throws {
        let model = try Self.model(name)
        #expect(model.parameterCount == parameters && !model.usesAdapter)
        let update = MemoryForecast(model, Self.rows(4, 1024), PlanLayout(), device: Self.h200)
        let phase = try #require(update.phases.first { $0.name == "optimizer step" })
        #expect(phase[.weights] == 2 * parameters && phase[.masters] == 4 * parameters)
        #expect(phase[.moments] == 8 * parameters && phase[.gradients] == 4 * parameters)
        var pure = Self.rows(4, 1024)
        (pure.optimizer.keepsMasters, pure.optimizer.moments, pure.optimizer.gradDType) = (false, .bfloat16, .bfloat16)
        let small = try #require(
            MemoryForecast(model, pure, PlanLayout(), device: Self.h200).phases.first { $0.name == "optimizer step" })
        #expect(small[.masters] == 0 && small[.moments] == 4 * parameters && small[.gradients] == 2 * parameters)
    }

    /// Weights, states and gradients as planned are those that a model and its optimizer allocate.
    @Test(arguments: [
        (DType.bfloat16, MomentType.float32, true), (.bfloat16, .int8, true), (.bfloat16, .bfloat16, false),
        (.float32, .float32, true), (.float32, .int8, true),
    ])
    func whatIsPlannedIsWhatIsAllocated(dtype: DType, moments: MomentType, masters: Bool) throws {
        let shape = try #require(BenchmarkShape.known["tiny"])
        var work = Self.rows(2, 16)
        work.dtype = dtype
        (work.optimizer.moments, work.optimizer.keepsMasters) = (moments, masters)
        let forecast = MemoryForecast(try PlanModel(shape, name: "tiny"), work, PlanLayout(), device: .cpu)
        let phase = try #require(forecast.phases.first { $0.name == "optimizer step" })
        let model = try shape.model(dtype: dtype, device: .cpu)
        let optimizer = try AdamW(parameters: model.parameters, settings: work.optimizer)
        #expect(phase[.weights] == model.parameters.reduce(0) { $0 + $1.tensor.byteCount })
        #expect(phase[.masters] + phase[.moments] == optimizer.stateBytes)
        let ids = try Tensor((0..<16).map { Int64($0) })
        try withGrad {
            let hidden = try model.hiddenStates(
                ids: ids, positions: ids,
                attention: PackedAttention(segments: [PackedSegment(start: 0, length: 16)]))
            try model.logits(hidden).to(dtype: .float32).sum().backward()
        }
        let grads = try model.parameters.reduce(0) { sum, parameter in
            let grad = try parameter.tensor.gradientSum() ?? parameter.tensor.grad()
            return sum + (grad?.byteCount ?? 0)
        }
        #expect(phase[.gradients] == grads)
    }

    @Test func partsAddUpAndPhasesKeepTheStates() throws {
        var work = PlanWork()
        work.needsReference = true
        let forecast = MemoryForecast(try Self.model("qwen2.5-0.5b"), work, PlanLayout(), device: Self.h200)
        #expect(forecast.phases.map(\.name) == ["generate", "log-prob", "update", "optimizer step"])
        for phase in forecast.phases {
            #expect(phase.total == phase.parts.reduce(0) { $0 + $1.bytes })
            #expect(phase.parts.allSatisfy { $0.bytes > 0 })
            #expect(phase[.weights] == 2 * 494_032_768 && phase[.reference] == phase[.weights])
            #expect(phase.tensors == phase.total - phase[.context] - phase[.communication] - phase[.graphs])
        }
        #expect(forecast.peak == forecast.phases.map(\.total).max())
    }

    /// A critic is a second model that is trained: its weights, masters and moments are there in every phase.
    @Test func criticIsAnotherTrainedModel() throws {
        var work = PlanWork()
        let model = try Self.model("qwen2.5-0.5b")
        let without = MemoryForecast(model, work, PlanLayout(), device: Self.h200)
        work.trainsCritic = true
        let with = MemoryForecast(model, work, PlanLayout(), device: Self.h200)
        for (own, other) in zip(with.phases, without.phases) where own.name != "generate" {
            #expect(own[.critic] == own[.weights] + own[.masters] + own[.moments])
            #expect(own.total - other.total == own[.critic])
        }
    }

    /// By itself only where there is no room; then it counts while it scores, and lies in the host's memory.
    @Test func aReferenceRestsWhereThereIsNoRoom() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var work = Self.rows(4, 1024), small = Self.h200
        work.needsReference = true
        let roomy = MemoryForecast(model, work, PlanLayout(), device: small)
        #expect(!roomy.rests.reference && roomy.restingBytes == 0)
        work.restsReference = true
        let resting = MemoryForecast(model, work, PlanLayout(), device: small)
        let weights = 2 * model.parameterCount
        #expect(resting.rests.reference && resting.restingBytes == weights && resting.peak < roomy.peak)
        let (before, after) = (roomy.phases.last, resting.phases.last)
        #expect(after?.name == "optimizer step" && after?.total == before.map { $0.total - weights })
        #expect(resting.phases.first { $0.name == "log-prob" }?[.reference] == weights)
        work.restsReference = nil
        small.memory = (resting.peak + roomy.peak) / 2
        #expect(MemoryForecast(model, work, PlanLayout(), device: small) == resting)
        work.restsReference = false
        #expect(!MemoryForecast(model, work, PlanLayout(), device: small).fits(small))
    }

    /// A step of PPO with a critic of its own and a reference, of which nothing has been said.
    private static var ppo: PlanWork {
        var work = PlanWork()
        (work.needsReference, work.trainsCritic, work.recomputesLogProbs) = (true, true, true)
        return work
    }
    private static let all = RestingRoles(reference: true, critic: true, states: true)

    /// Each phase holds what it computes with, and nobody else's.
    @Test func whoRestsIsThereForItsTurn() throws {
        let model = try Self.model("qwen2.5-0.5b"), weights = 2 * model.parameterCount
        var work = Self.ppo
        work.takesTurns = true
        let forecast = MemoryForecast(model, work, PlanLayout(), device: Self.h200)
        #expect(forecast.rests == Self.all)
        let names = ["generate", "log-prob", "values", "update critic", "update", "optimizer step"]
        #expect(forecast.phases.map(\.name) == names)
        // Weights, masters and moments, in units of the weights.
        for (name, reference, critic, states) in [
            ("generate", 0, 0, 0), ("log-prob", 1, 0, 0), ("values", 0, 1, 0), ("update critic", 0, 7, 0),
            ("update", 0, 0, 6),
            ("optimizer step", 0, 0, 6),
        ] {
            let phase = try #require(forecast.phases.first { $0.name == name })
            #expect(phase[.weights] == weights && phase[.reference] == reference * weights, "\(name)")
            #expect(phase[.critic] == critic * weights, "\(name)")
            #expect(phase[.masters] + phase[.moments] == states * weights, "\(name)")
        }
        #expect(forecast.restingBytes == 14 * weights)
        // The reference comes; the critic's weights come twice and go once, and its states and the actor's both ways.
        #expect(forecast.restingTraffic == (1 + 3 + 12 + 12) * weights)
        let time = TimeForecast(model, work, PlanLayout(), device: Self.h200, memory: forecast)
        let turns = try #require(time.phases.first { $0.name == "turns" }).seconds
        #expect(abs(turns - Double(forecast.restingTraffic) / TimeForecast.Shares().restingLink) < 1e-9)
        // What is offloaded for good does not come and go.
        (work.optimizer.offloadsMoments, work.optimizer.offloadsMasters) = (true, true)
        let streamed = MemoryForecast(model, work, PlanLayout(), device: Self.h200)
        #expect(streamed.restingBytes == 2 * weights && streamed.hostBytes == 12 * weights)
    }

    /// As the device gets smaller, first the reference goes, and in the end all; each time it fits again.
    @Test func asManyRestAsThereIsNoRoomFor() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var device = Self.h200, work = Self.ppo, seen: [RestingRoles] = []
        work.generates = false
        for _ in 0..<5 {
            let forecast = MemoryForecast(model, work, PlanLayout(), device: device)
            guard forecast.fits(device) else { break }
            if seen.last != forecast.rests { seen.append(forecast.rests) }
            device.memory = forecast.peak
        }
        // The critic's update takes what the actor's does: it gains by resting where the actor's states do too.
        #expect(seen == [RestingRoles(), RestingRoles(reference: true), Self.all])
        work.takesTurns = false
        #expect(MemoryForecast(model, work, PlanLayout(), device: device).rests == RestingRoles())
        work.restsReference = true
        #expect(MemoryForecast(model, work, PlanLayout(), device: device).rests == RestingRoles(reference: true))
        (work.takesTurns, work.restsReference) = (nil, false)
        #expect(
            MemoryForecast(model, work, PlanLayout(), device: device).rests
                == RestingRoles(reference: false, critic: true, states: true))
        // On the CPU nothing is gained.
        (work.takesTurns, work.restsReference) = (nil, nil)
        var host = PlanDevice.cpu
        host.memory = 1 << 20
        #expect(MemoryForecast(model, work, PlanLayout(), device: host).rests == RestingRoles())
    }

    /// What would fit if roles might rest says so first.
    @Test func restIsARemedy() throws {
        var work = Self.ppo, device = Self.h200
        (work.takesTurns, device.memory) = (false, 12 << 30)
        let model = try Self.model("qwen2.5-0.5b")
        let refused = try TrainingPlanner(model: model, work: work, device: device).plan()
        #expect(refused.chosen == nil && refused.remedies.first?.hasPrefix("trainer.take_turns: true") == true)
        work.takesTurns = nil
        let found = try TrainingPlanner(model: model, work: work, device: device).plan()
        #expect(found.chosen?.memory.rests == Self.all && !found.remedies.contains { $0.contains("take_turns") })
    }

    /// In this order; what is said of one is kept, and nothing is tried where there is no other memory.
    @Test func theLeastIsTriedFirst() {
        func levels(_ change: (inout PlanWork) -> Void = { _ in }, isCUDA: Bool = true) -> [RestingRoles] {
            var work = Self.ppo
            change(&work)
            return RestingChoices(work, isCUDA: isCUDA).levels
        }
        let reference = RestingRoles(reference: true), two = RestingRoles(reference: true, critic: true)
        #expect(levels() == [RestingRoles(), reference, two, Self.all])
        #expect(levels { $0.restsReference = true } == [reference, two, Self.all])
        let staying = [RestingRoles(), RestingRoles(critic: true), RestingRoles(critic: true, states: true)]
        #expect(levels { $0.restsReference = false } == staying)
        #expect(
            levels { $0.trainsCritic = false } == [RestingRoles(), reference, .init(reference: true, states: true)])
        #expect(levels { $0.takesTurns = true } == [Self.all] && levels { $0.takesTurns = false } == [RestingRoles()])
        #expect(levels(isCUDA: false) == [RestingRoles()])
        #expect(levels({ $0.takesTurns = true }, isCUDA: false) == [Self.all])
    }

    /// By itself where training has room beside the whole cache that a batch needs; what is asked for is done and counted.
    @Test func theSamplerStaysAwakeWhereThereIsRoom() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var work = PlanWork(), device = Self.h200
        (work.prompts, work.samples, work.engine.maxRows) = (64, 8, 512)
        func forecast() -> MemoryForecast { MemoryForecast(model, work, PlanLayout(), device: device) }
        let awake = forecast(), cache = DeviceShare(model, work, PlanLayout()).neededCache
        #expect(awake.keepsCache && awake.cacheBytes == cache && cache > 0)
        #expect(awake.phases.allSatisfy { $0[.cache] == cache && $0[.graphs] > 0 })
        work.engine.freesCacheBetween = true
        let sleeps = forecast()
        #expect(!sleeps.keepsCache && sleeps.phases.allSatisfy { ($0[.cache] > 0) == ($0.name == "generate") })
        #expect(sleeps.peak < awake.peak)
        // Room for the update, and none for the cache beside it.
        work.engine.freesCacheBetween = nil
        device.memory = (sleeps.peak + awake.peak) / 2
        #expect(forecast() == sleeps && forecast().fits(device))
        work.engine.freesCacheBetween = false
        #expect(forecast().keepsCache && !forecast().fits(device))
        // A cache that takes what there is does not stay, nor one beside a reward model.
        work.engine.freesCacheBetween = nil
        (device, work.engine.memoryFraction) = (Self.h200, 0.03)
        #expect(forecast().cacheBytes < cache && !forecast().keepsCache)
        (work.engine.memoryFraction, work.scoresWithModel) = (0.5, true)
        #expect(!forecast().keepsCache)
        // Samplers whose devices train nothing never sleep.
        #expect(MemoryForecast(model, work.part(of: [.rollout]), PlanLayout(), device: device).keepsCache)
    }

    /// Roles rest only where that is not enough: the sampler goes to sleep first.
    @Test func theSamplerSleepsBeforeRolesRest() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var device = Self.h200, work = Self.ppo, seen: [String] = []
        (work.checkpointing, work.microBatchTokens, device.memory) = (.full, 2048, 32 << 30)
        for _ in 0..<400 {
            let forecast = MemoryForecast(model, work, PlanLayout(), device: device)
            guard forecast.fits(device) else { break }
            let state = (forecast.keepsCache ? "awake " : "asleep ") + forecast.rests.names.joined(separator: ", ")
            if seen.last != state { seen.append(state) }
            device.memory -= 128 << 20
        }
        #expect(seen.prefix(2) == ["awake ", "asleep "], "\(seen)")
        #expect(seen.contains { $0.contains("the actor's optimizer states") }, "\(seen)")
    }

    /// A role that is alone on its devices has nobody to make room for.
    @Test func whoIsAloneStays() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var work = Self.ppo
        work.takesTurns = true
        func rests(_ roles: Set<Role>) -> RestingRoles {
            MemoryForecast(model, work.part(of: roles), PlanLayout(), device: Self.h200).rests
        }
        #expect(rests([.critic]) == RestingRoles() && rests([.actor]) == RestingRoles())
        #expect(rests([.critic, .reference]) == RestingRoles(reference: true, critic: true))
        #expect(rests([.actor, .rollout]) == RestingRoles(states: true))
        #expect(rests([.rollout]) == RestingRoles())
    }

    @Test func moreTokensNeverTakeLess() throws {
        for name in ["tiny", "qwen2.5-0.5b", "qwen2-7b"] {
            let model = try Self.model(name)
            for mode in [ActivationCheckpointing.none, .selective(), .full] {
                let peaks = [256, 1024, 4096, 16384].map { tokens in
                    MemoryForecast(model, Self.rows(1, tokens, mode), PlanLayout(), device: Self.h200).peak
                }
                #expect(peaks == peaks.sorted())
            }
            func kept(_ mode: ActivationCheckpointing) -> Int {
                MemoryForecast(model, Self.rows(8, 4096, mode), PlanLayout(), device: Self.h200).peak
            }
            #expect(kept(.full) <= kept(.selective()) && kept(.selective()) <= kept(.none))
        }
    }

    @Test(arguments: [2, 4, 8]) func shardingDivides(ranks: Int) throws {
        let model = try Self.model("qwen2-7b")
        let whole = try #require(
            MemoryForecast(model, Self.rows(8, 4096), PlanLayout(), device: Self.h200).phases.first {
                $0.name == "optimizer step"
            })
        var layout = PlanLayout()
        layout.fsdp = ranks
        for sharding in PlanLayout.Sharding.allCases {
            layout.sharding = sharding
            let phase = try #require(
                MemoryForecast(model, Self.rows(8 * ranks, 4096), layout, device: Self.h200).phases.first {
                    $0.name == "optimizer step"
                })
            for kind in [MemoryForecast.Kind.masters, .moments, .gradients] {
                let expected = sharding == .noShard ? whole[kind] : whole[kind] / ranks
                #expect(abs(phase[kind] - expected) <= 8 * model.tensors.count, "\(kind) under \(sharding)")
            }
            // Whole ones are freed when the mini-batch is done.
            let weights = sharding == .noShard ? whole[.weights] : whole[.weights] / ranks
            #expect(abs(phase[.weights] - weights) <= 2 * model.tensors.count)
        }
        var tensorParallel = PlanLayout()
        tensorParallel.tp = 2
        let half = MemoryForecast(model, Self.rows(8, 4096), tensorParallel, device: Self.h200)
        #expect(half.phases.last.map { $0[.weights] } ?? 0 < whole[.weights])
    }

    @Test func offloadMovesStatesToTheHostOfAGPUAlone() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var work = Self.rows(4, 1024)
        (work.optimizer.offloadsMoments, work.optimizer.offloadsMasters) = (true, true)
        let moved = MemoryForecast(model, work, PlanLayout(), device: Self.h200)
        #expect(moved.hostBytes == 12 * 494_032_768)
        #expect(moved.phases.allSatisfy { $0[.masters] == 0 && $0[.moments] == 0 })
        #expect(moved.phases.last.map { $0[.slabs] } == 3 << 24 * 12)
        #expect(MemoryForecast(model, work, PlanLayout(), device: .cpu).hostBytes == 0)
    }

    /// The cache is what the engine asks for: whole blocks, prompts once.
    @Test func theCacheIsCountedInBlocks() throws {
        let model = try Self.model("qwen2.5-0.5b")
        var work = PlanWork()
        (work.prompts, work.samples, work.promptTokens, work.responseTokens) = (4, 2, 100, 60)
        let phase = try #require(MemoryForecast(model, work, PlanLayout(), device: Self.h200).phases.first)
        // A prompt of 95 tokens takes the most: 10 blocks of 16 tokens a sequence, 5 of them shared by both answers; one spare a
        // prompt, two at the end.
        let blocks = 4 * (5 + 2 * 5 + 1) + 2
        #expect(phase[.cache] == blocks * 16 * 24 * 2 * 2 * 64 * 2)
        work.engine.cachesInFloat8 = true
        let coded = try #require(MemoryForecast(model, work, PlanLayout(), device: Self.h200).phases.first)
        #expect(2 * coded[.cache] == phase[.cache])
    }

    @Test func expertsAreCountedAndAxesShareThem() throws {
        var layout = PlanLayout()
        layout.ep = 2
        #expect(layout.problem(try Self.model("qwen2-7b")) == "there are no experts for ep=2")
        layout = PlanLayout()
        layout.tp = 8
        #expect(try #require(layout.problem(Self.model("qwen2-7b"))).contains("does not divide 28 heads"))
        #expect(PlanLayout("tp=2,fsdp=4")?.devices == 8 && PlanLayout("tp=0") == nil && PlanLayout("x=2") == nil)
    }
}
