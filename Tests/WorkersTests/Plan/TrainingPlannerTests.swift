import Checkpoints
import Config
import Models
import OrderedCollections
import TensorCore
import Testing
import TrainingEngine

@testable import Workers

@Suite struct TrainingPlannerTests {
    func device(_ name: String = "h200", memory: String? = nil) throws -> PlanDevice {
        var device = try #require(PlanDevice(named: name))
        if let memory { device.memory = try #require(PlanDevice.bytes(memory)) }
        return device
    }

    func planner(_ model: String, _ device: PlanDevice, devices: Int = 1) throws -> TrainingPlanner {
        var work = PlanWork()
        (work.prompts, work.samples, work.promptTokens, work.responseTokens) = (32, 8, 256, 1024)
        work.miniBatch = 32
        return TrainingPlanner(
            model: try MemoryForecastTests.model(model), work: work, device: device, devices: devices)
    }

    @Test func aSmallModelFitsAndTheFastestWayIsNamed() throws {
        let result = try planner("qwen2.5-0.5b", device()).plan()
        #expect(result.verdict == .fits && result.remedies.isEmpty)
        let chosen = try #require(result.chosen)
        #expect(chosen.layout.devices == 1 && chosen.memory.fits(result.device))
        #expect(chosen.time.total > 0 && chosen.time.total <= result.asIs.time.total * 1.01)
        #expect(chosen.time.phases.map(\.name) == ["generate", "update", "optimizer step"])
    }

    /// 18 bytes a parameter of 7.6 billion are 127 GiB: they fit an H200 and no 80 GB.
    @Test func whatCannotFitIsRefusedWithAWayOut() throws {
        let big = try planner("qwen2-7b", device()).plan()
        #expect(big.verdict != .cannotFit)
        let small = try planner("qwen2-7b", device("h100")).plan()
        #expect(small.verdict == .cannotFit && small.chosen == nil)
        #expect(small.least.peak > small.device.memory)
        #expect(small.remedies.contains { $0.contains("optimizer_offload") })
        #expect(small.remedies.contains { $0.contains("such devices") })
        #expect(small.rejected.count == 1 && small.rejected[0].why.contains("GiB in"))
        let four = try planner("qwen2-7b", device("h100"), devices: 4).plan()
        #expect(four.verdict == .mayRunOut && four.chosen != nil)
        #expect(four.rejected.contains { $0.why.contains("a step") || $0.why.contains("GiB") })
        // Whoever does not shard has all of it on each device.
        #expect(four.rejected.contains { $0.what == "dp=4" && $0.why.contains("usable are") })
    }

    @Test func aLongBatchThatIsTooMuchIsTold() throws {
        let device = try device(memory: "16GiB")
        var planner = try planner("qwen2.5-0.5b", device)
        var work = planner.work
        work.microBatchTokens = 65_536
        planner = TrainingPlanner(model: planner.model, work: work, device: device)
        let result = try planner.plan()
        #expect(result.verdict == .mayRunOut)
        let chosen = try #require(result.chosen)
        #expect(chosen.microBatchTokens < 65_536 || chosen.mode != "none")
        #expect(chosen.memory.fits(device))
    }

    @Test func layoutsThatMakeNoSenseAreErrors() throws {
        let planner = try planner("qwen2-7b", device(), devices: 4)
        #expect(throws: WorkerError.self) { try planner.plan(layout: PlanLayout("tp=2")) }
        let eight = TrainingPlanner(model: planner.model, work: planner.work, device: planner.device, devices: 8)
        #expect(throws: WorkerError.self) { try eight.plan(layout: PlanLayout("tp=8")) }
        #expect(try planner.plan(layout: PlanLayout("tp=2,fsdp=2")).asIs.layout.tp == 2)
    }

    @Test func theReportForProgramsHasEveryByte() throws {
        let result = try planner("qwen2.5-0.5b", device()).plan()
        let json = try #require(result.json().objectValue)
        let memory = try #require(json["configured"]?.objectValue?["memory"]?.objectValue)
        #expect(memory["peak_bytes"]?.intValue == result.asIs.memory.peak)
        let phases = try #require(memory["phases"]?.arrayValue)
        #expect(phases.count == result.asIs.memory.phases.count)
        for phase in phases {
            let parts = try #require(phase.objectValue?["parts"]?.objectValue)
            #expect(parts.values.reduce(0) { $0 + ($1.intValue ?? 0) } == phase.objectValue?["total_bytes"]?.intValue)
        }
    }

    @Test func sizesAreRead() {
        #expect(PlanDevice.bytes("141GB") == 141_000_000_000 && PlanDevice.bytes("80GiB") == 80 << 30)
        #expect(PlanDevice.bytes("1024") == 1024 && PlanDevice.bytes("x") == nil && PlanDevice.bytes("-1GB") == nil)
        #expect(PlanDevice(named: "h200")?.isCUDA == true && PlanDevice(named: "cpu")?.isCUDA == false)
        #expect(PlanDevice(named: "nothing") == nil)
    }

    /// The start of a run refuses what cannot fit and says what would; it warns of what may not.
    @Test func theStartOfARunRefusesWhatCannotFit() throws {
        func plan(_ overrides: String...) throws -> RunPlan {
            let yaml = """
                model: {path: m, dtype: bfloat16}
                device: cpu
                data: {train_files: "builtin:arithmetic"}
                reward: {type: exact_match}
                """
            return try RunPlan(
                RunConfig(yaml: yaml, file: "r.yaml", overrides: overrides, names: TrainingRun.knownNames))
        }
        let big = try MemoryForecastTests.model("qwen2-7b"), small = try MemoryForecastTests.model("tiny")
        let error = try #require(throws: WorkerError.self) { try plan().checkMemory(of: big, on: device("h100")) }
        #expect(error.code == .memory && error.message.contains("NVIDIA H100 has 79.1 GiB"))
        #expect(error.message.contains("try actor.") && error.message.contains("trainer.plan: warn"))
        #expect(try plan("trainer.plan=warn").checkMemory(of: big, on: device("h100")) == [error.message])
        #expect(try plan().checkMemory(of: small, on: device("h100")) == [])
        // A model whose folder is not there is not looked for where nobody asks.
        #expect(try plan("trainer.plan=off").checkMemory() == [])
        let half = try MemoryForecastTests.model("qwen2.5-0.5b")
        let warnings = try plan("actor.ppo_max_token_len_per_gpu=65536").checkMemory(
            of: half, on: device(memory: "16GiB"))
        #expect(warnings.count == 1 && warnings[0].contains("memory may run out"))
    }

    /// An adapter's states are its own, beside frozen weights.
    @Test func adaptersTrainLittle() throws {
        let yaml = """
            model: {path: m, dtype: bfloat16, lora_rank: 8}
            data: {train_files: "builtin:arithmetic"}
            reward: {type: exact_match}
            """
        let config = try RunConfig(yaml: yaml, file: "r.yaml", names: TrainingRun.knownNames)
        let shape = try #require(BenchmarkShape.known["qwen2.5-0.5b"])
        let model = try PlanModel(
            shape.config, architecture: shape.architecture, name: "m",
            adapter: AdapterPlan(config.model, seed: 0))
        #expect(model.usesAdapter && model.parameterCount == 494_032_768)
        // Per layer: rank times inputs and outputs of q, k, v, o, gate, up and down.
        let widths = [(896, 896), (896, 128), (896, 128), (896, 896), (896, 4864), (896, 4864), (4864, 896)]
        let expected = 24 * 8 * widths.reduce(0) { $0 + $1.0 + $1.1 }
        #expect(model.trained.reduce(0) { $0 + $1.count } == expected)
        let forecast = MemoryForecast(model, PlanWork(config), PlanLayout(), device: try device())
        let step = try #require(forecast.phases.last)
        #expect(step[.moments] == 8 * expected && step[.masters] == 4 * expected && step[.gradients] == 4 * expected)
        #expect(step[.weights] == 2 * (494_032_768 + expected))
    }
}
