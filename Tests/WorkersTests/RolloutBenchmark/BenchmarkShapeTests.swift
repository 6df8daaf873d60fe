import Models
import TensorCore
import Testing

@testable import Workers

@Suite struct BenchmarkShapeTests {
    /// Adds up the tensors that an architecture asks for; nothing is allocated.
    private final class Counter: WeightSource {
        var parameters = 0
        func problem(_ name: String, shape: [Int]) -> WeightProblem? {
            parameters += shape.reduce(1, *)
            return nil
        }
        func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
            try Tensor.zeros(shape)
        }
    }

    /// As the models' cards and checkpoints have them.
    @Test(arguments: [
        ("smollm2-135m", 134_515_008), ("qwen2.5-0.5b", 494_032_768), ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2-7b", 7_615_616_512), ("llama-3-8b", 8_030_261_248),
    ])
    func hasThePublishedNumberOfParameters(_ name: String, _ parameters: Int) throws {
        let shape = try #require(BenchmarkShape.known[name])
        let counter = Counter()
        try ModelRegistry.check(shape.config, architecture: shape.architecture, weights: counter)
        #expect(counter.parameters == parameters)
    }

    @Test func namesGoBySize() {
        #expect(BenchmarkShape.names.first == "tiny" && BenchmarkShape.names.last == "llama-3-8b")
        #expect(BenchmarkShape.names.count == BenchmarkShape.known.count)
    }

    @Test(arguments: [DType.float32, .bfloat16])
    func weightsAreDrawnAsSaid(_ dtype: DType) throws {
        let shape = try #require(BenchmarkShape.known["tiny"])
        let model = try shape.model(dtype: dtype, device: .cpu)
        #expect(model.dtype == dtype)
        let embedding = model.parameters[0].tensor
        let values = try embedding.values(Float.self)
        let mean = values.reduce(0, +) / Float(values.count)
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(values.count)
        #expect(abs(mean) < 1e-3 && abs(variance.squareRoot() - 0.02) < 1e-3)
        let norm = try #require(model.parameters.first { $0.name.hasSuffix("norm.weight") })
        #expect(try norm.tensor.values(Float.self).allSatisfy { $0 == 1 })
        let again = try shape.model(dtype: dtype, device: .cpu).parameters[0].tensor.values(Float.self)
        #expect(again == values)
    }

    @Test func everyCaseGivesItsTokens() throws {
        let shape = try #require(BenchmarkShape.known["tiny"])
        var settings = RolloutBenchmark.Settings(
            cases: [RolloutCase(prompts: 3, input: 5, output: 4), RolloutCase(prompts: 1, input: 2, output: 1)])
        settings.samples = 2
        settings.sharedPrefix = 2
        settings.repeats = 2
        settings.profile = .call
        let report = try RolloutBenchmark.run(shape, dtype: .float32, device: .cpu, settings: settings)
        #expect(report.measurements.map(\.newTokens) == [24, 2])
        #expect(report.measurements.allSatisfy { $0.seconds.count == 2 && $0.profile != nil })
        #expect(report.measurements[0].decodeSteps == 3)
        #expect(report.machine.bandwidth > 0 && report.machine.peak > 0 && report.readySeconds > 0)
    }

    @Test func aSettingThatTheEngineHasNotIsRefused() {
        var settings = RolloutBenchmark.EngineSettings()
        settings.blockSize = 16
        #expect(throws: WorkerError.self) { try settings.options(rows: 1) }
    }
}
