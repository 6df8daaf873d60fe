import Collectives
import Config
import Models
import TensorCore
import TestSupport
import Testing
import TrainingEngine

@testable import Workers

/// What several devices each have in memory.
@Suite struct SharedMemoryForecastTests {
    private static func layout(_ sharding: PlanLayout.Sharding, _ text: String) throws -> PlanLayout {
        var layout = try #require(PlanLayout(text))
        layout.sharding = sharding
        return layout
    }

    private static func phase(_ forecast: MemoryForecast, _ name: String) throws -> MemoryForecast.Phase {
        try #require(forecast.phases.first { $0.name == name })
    }

    /// Planned weights, states and gathered layers are those that ranks allocate. The tiny shape's rows divide by 2 and by 4.
    @Test(arguments: PlanLayout.Sharding.allCases, [(2, DType.float32), (4, .float32), (2, .bfloat16), (4, .bfloat16)])
    func whatIsPlannedIsWhatRanksAllocate(sharding: PlanLayout.Sharding, run: (ranks: Int, dtype: DType)) throws {
        let (ranks, dtype) = run
        let shape = try #require(BenchmarkShape.known["tiny"]), store = try RendezvousStore.local()
        var work = MemoryForecastTests.rows(2 * ranks, 16)
        work.dtype = dtype
        let layout = try Self.layout(sharding, sharding == .noShard ? "dp=\(ranks)" : "fsdp=\(ranks)")
        let forecast = MemoryForecast(try PlanModel(shape, name: "tiny"), work, layout, device: .cpu)
        let step = try Self.phase(forecast, "optimizer step"), update = try Self.phase(forecast, "update")
        let mode: ShardingMode =
            switch sharding {
            case .full: .fullShard
            case .gradOp: .shardGradOp
            case .noShard: .noShard
            }
        let settings = work.optimizer
        let planned = (weights: step[.weights], states: step[.masters] + step[.moments], gradients: step[.gradients])
        let gathered = update[.gathered]
        try onRanks(ranks) { rank in
            let mesh = DeviceMesh(
                MeshShape(mode == .noShard ? [.replicate: ranks] : [.shard: ranks]), rank: rank, store: store)
            let model = try shape.model(dtype: dtype, device: .cpu, byName: true)
            let parallel = try DataParallel(
                model, trained: model.parameters, mesh: mesh, sharding: .init(mode: mode, gradDType: .float32))
            let optimizer = try parallel.optimizer(settings)
            let kept = try parallel.parameters.localShards().reduce(0) { $0 + $1.tensor.byteCount }
            #expect(kept == planned.weights && optimizer.stateBytes == planned.states)
            try parallel.parameters.begin()
            let loss = try withGrad {
                try model.hiddenStates(
                    ids: Tensor((0..<16).map(Int64.init)), positions: Tensor((0..<16).map(Int64.init)),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: 16)])
                ).squared().sum()
            }
            // Two layers, of which both are whole at some time; after forward the last one is.
            let layer = ParameterUnits(model.parameters).layers[0].reduce(0) { $0 + $1.tensor.byteCount }
            let isFreed = mode == .fullShard
            #expect(
                mode == .noShard
                    || abs(parallel.parameters.wholeBytes + (isFreed ? layer : 0) - gathered) <= 2 * 64 * dtype.size)
            try parallel.parameters.backward(loss, isLast: true)
            try parallel.parameters.end()
            let gradients = try parallel.parameters.all.reduce(0) { $0 + (try $1.gradient()?.byteCount ?? 0) }
            #expect(gradients == planned.gradients)
        }
    }

    /// The table of docs/sharding.md: what is there between steps, and while layers run.
    @Test(arguments: [2, 4, 8]) func shardingSavesWhatItSays(ranks: Int) throws {
        let model = try MemoryForecastTests.model("qwen2-7b"), work = MemoryForecastTests.rows(8 * ranks, 4096)
        let weights = 2 * 7_615_616_512, root = 2 * 2 * 152_064 * 3584
        let layer = (weights - root) / 28
        func update(_ sharding: PlanLayout.Sharding) throws -> MemoryForecast.Phase {
            let text = sharding == .noShard ? "dp=\(ranks)" : "fsdp=\(ranks)"
            return try Self.phase(
                MemoryForecast(model, work, Self.layout(sharding, text), device: MemoryForecastTests.h200), "update")
        }
        let full = try update(.full), gradOp = try update(.gradOp), none = try update(.noShard)
        #expect(abs(full[.gathered] - root - 2 * layer) < 1 << 20)
        #expect(gradOp[.gathered] == weights && none[.gathered] == 0)
        #expect(abs(full[.weights] - weights / ranks) < 1 << 20 && full[.weights] == gradOp[.weights])
        #expect(none[.weights] == weights)
        #expect(full[.moments] == gradOp[.moments] && none[.moments] == 4 * weights)
        // Nobody has less in flight than a layer's gradient, and the head's.
        #expect(full[.gradientInFlight] > layer && none[.gradientInFlight] > 0)
        #expect(full.total < gradOp.total && gradOp.total < none.total)
    }

    @Test func samplingTakesWeightsOfItsOwn() throws {
        let model = try MemoryForecastTests.model("qwen2-7b")
        let weights = 2 * 7_615_616_512, device = MemoryForecastTests.h200
        func generate(_ sharding: PlanLayout.Sharding, _ text: String) throws -> MemoryForecast.Phase {
            try Self.phase(MemoryForecast(model, PlanWork(), Self.layout(sharding, text), device: device), "generate")
        }
        // What is trained is what is sampled from.
        #expect(try generate(.noShard, "dp=4")[.rolloutWeights] == 0)
        #expect(try generate(.full, "fsdp=4")[.rolloutWeights] == weights)
        #expect(try generate(.gradOp, "fsdp=4")[.rolloutWeights] == weights)
        // A model of its own, whole or in parts.
        #expect(try generate(.full, "tp=4")[.rolloutWeights] == weights)
        let half = try generate(.full, "fsdp=4,rollout=2")
        #expect(abs(half[.rolloutWeights] - weights / 2) < 1 << 20 && half[.weights] < weights / 3)
        let sync = try Self.phase(
            MemoryForecast(model, PlanWork(), Self.layout(.full, "fsdp=4,rollout=2"), device: device), "weight sync")
        #expect(sync[.bucket] == 512 << 20)
        #expect(
            try Self.phase(
                MemoryForecast(model, PlanWork(), Self.layout(.full, "fsdp=4"), device: device), "weight sync")[.bucket]
                == 0)
        // Two devices keep half of the keys and values each.
        #expect(half[.cache] > 0)
    }

    /// Whoever has no room for all states shares them out; whoever has, does not.
    @Test func theLayoutIsChosenForAReason() throws {
        func plan(_ name: String, _ device: String, _ devices: Int) throws -> TrainingPlanner.Result {
            var work = PlanWork()
            (work.prompts, work.samples, work.promptTokens, work.responseTokens) = (32, 8, 256, 1024)
            work.miniBatch = 32
            return try TrainingPlanner(
                model: MemoryForecastTests.model(name), work: work, device: #require(PlanDevice(named: device)),
                devices: devices
            ).plan()
        }
        let big = try plan("qwen2-7b", "h100", 8), chosen = try #require(big.chosen)
        #expect(chosen.layout.devices == 8 && chosen.layout.shards * chosen.layout.tp > 1)
        #expect(chosen.memory.fits(big.device))
        #expect(try #require(big.reason).contains("on every device would be"))
        #expect(chosen.settings.contains("trainer.n_gpus_per_node=8"))
        #expect(
            chosen.settings.contains("actor.fsdp_config.fsdp_size=\(chosen.layout.fsdp)") == (chosen.layout.shards > 1))
        #expect(big.rejected.contains { $0.what == "dp=8" && $0.why.contains("usable are") })
        let small = try plan("qwen2.5-0.5b", "h200", 4), fits = try #require(small.chosen)
        #expect(fits.layout.shards == 1 && fits.layout.dp == 4)
        #expect(try #require(small.reason).contains("none of them travel"))
        #expect(!fits.settings.contains { $0.contains("fsdp_size") })
        #expect(try plan("qwen2.5-0.5b", "h200", 1).reason == "one device")
    }

    @Test func layoutsAreThoseOfConfigurations() throws {
        func layout(_ overrides: [String], _ ranks: Int) throws -> PlanLayout {
            let yaml = """
                model: {path: m}
                data: {train_files: "builtin:arithmetic"}
                reward: {type: exact_match}
                """
            let config = try RunConfig(
                yaml: yaml, file: "r.yaml", overrides: overrides, names: TrainingRun.knownNames)
            return PlanLayout(try ShardingPlan(config.actor, config.rollout, ranks: ranks))
        }
        #expect(try layout([], 4).description == "dp=4")
        #expect(try layout(["actor.fsdp_config.fsdp_size=-1"], 4).description == "fsdp=4 FULL_SHARD")
        let hybrid = try layout(
            ["actor.fsdp_config.fsdp_size=2", "actor.fsdp_config.reshard_after_forward=false"], 4)
        #expect(hybrid.description == "dp=2 fsdp=2 SHARD_GRAD_OP" && hybrid.copies == 2 && hybrid.devices == 4)
        #expect(
            hybrid.settings == [
                "trainer.n_gpus_per_node=4", "actor.fsdp_config.fsdp_size=2",
                "actor.fsdp_config.reshard_after_forward=false",
            ])
        #expect(PlanLayout("tp=2,rollout=2")?.settings.last == "rollout.tensor_model_parallel_size=2")
    }

    /// Four ranks that share all out fit where one, or four that share nothing, do not.
    @Test func theStartOfARunCountsItsRanks() throws {
        func plan(_ overrides: String...) throws -> RunPlan {
            let yaml = """
                model: {path: m, dtype: bfloat16}
                device: cpu
                data: {train_files: "builtin:arithmetic", train_batch_size: 8, max_response_length: 128}
                actor: {ppo_mini_batch_size: 8}
                reward: {type: exact_match}
                """
            return try RunPlan(
                RunConfig(yaml: yaml, file: "r.yaml", overrides: overrides, names: TrainingRun.knownNames))
        }
        let model = try MemoryForecastTests.model("qwen2-7b"), device = try #require(PlanDevice(named: "h100"))
        #expect(throws: WorkerError.self) { try plan().checkMemory(of: model, on: device) }
        let apart = try #require(throws: WorkerError.self) { try plan().checkMemory(of: model, on: device, ranks: 4) }
        #expect(apart.message.contains("try trainer.n_gpus_per_node=4"))
        #expect(apart.message.contains("model.activation_checkpointing="))
        let shared = try plan(
            "actor.fsdp_config.fsdp_size=-1", "model.activation_checkpointing=full",
            "actor.ppo_max_token_len_per_gpu=4096")
        #expect(try shared.checkMemory(of: model, on: device, ranks: 4) == [])
        // What lies in a host's memory must have room there, of all its ranks.
        let resting = try plan(
            "trainer.take_turns=true", "actor.fsdp_config.fsdp_size=-1", "model.activation_checkpointing=full",
            "actor.ppo_max_token_len_per_gpu=4096")
        #expect(try resting.checkMemory(of: model, on: device, ranks: 4, hostMemory: 128 << 30) == [])
        let short = try resting.checkMemory(of: model, on: device, ranks: 4, hostMemory: 64 << 30)
        #expect(short.count == 1 && short[0].contains("85.1 GiB wait in pinned host memory"), "\(short)")
        // Processes on the CPU share the machine's memory.
        var host = PlanDevice.cpu
        host.memory = 64 << 30
        let half = try MemoryForecastTests.model("qwen2.5-0.5b")
        #expect(try plan().checkMemory(of: half, on: host) == [])
        let tight = try #require(throws: WorkerError.self) { try plan().checkMemory(of: half, on: host, ranks: 16) }
        #expect(tight.message.contains("each of 16 processes has 4.0 GiB"), "\(tight.message)")
    }
}
