import Models
import RolloutCore
import RolloutEngine
public import TensorCore
import TrainingEngine

/// Measurements of the engines on a model's real weights; `fledge bench` prints them.
public enum Benchmarks {
    public struct Measurement: Sendable {
        public var dtype: String
        public var seconds: [Double]
        public var peakBytes: Int
        public var loss = Double.nan

        /// Units a second in the fastest run.
        public func best(of count: Int) -> Double { Double(count) / (seconds.min() ?? .nan) }
    }

    /// `prompts` × `samples` answers of exactly `newTokens` tokens.
    public static func generation(
        _ plan: PolicyWorker.Plan, prompts: Int, samples: Int, promptTokens: Int, newTokens: Int, repeats: Int
    ) async throws -> Measurement {
        let worker = PolicyWorker(plan)
        try await worker.load()
        return try await worker.withModel { model, device in
            let engine = RolloutEngine(model: model)
            let requests = (0..<prompts).map { prompt in
                RolloutRequest(
                    prompt: (0..<promptTokens).map { token in
                        Int32(SplitMix64.seed(UInt64(prompt), UInt64(token)) % UInt64(model.shape.vocabulary))
                    }, sampling: SamplingParameters(n: samples, maxTokens: newTokens, seed: UInt64(prompt)))
            }
            return try measure(model, device, repeats) {
                _ = try engine.generate(requests)
                return .nan
            }
        }
    }

    /// One optimizer step on `sequences` × `length` tokens, loss over every token but the first of each.
    public static func training(
        _ plan: PolicyWorker.Plan, sequences: Int, length: Int, microBatchTokens: Int, logitsChunk: Int?, repeats: Int
    ) async throws -> Measurement {
        let worker = PolicyWorker(plan)
        try await worker.load()
        return try await worker.withModel { model, device in
            let trainer = PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.trainableParameters, settings: .init()),
                schedule: LearningRateSchedule(peak: 1e-6),
                settings: .init(
                    microBatchTokens: microBatchTokens, sharesPrefixes: false, logitsChunk: logitsChunk))
            let samples = (0..<sequences).map { sequence in
                let ids = (0..<length).map { token in
                    Int32(SplitMix64.seed(UInt64(sequence), UInt64(token)) % UInt64(model.shape.vocabulary))
                }
                let flat = [Float](repeating: 0, count: length - 1)
                return PolicySample(
                    sequence: TrainingSequence(prompt: [ids[0]], response: Array(ids.dropFirst())), advantages: flat,
                    rolloutLogProbs: flat)
            }
            return try measure(model, device, repeats) {
                try trainer.update(samples) { inputs in
                    let loss = try inputs.logProbs.multiplied(by: inputs.responseMask).sum()
                        .divided(by: Double(inputs.totals.tokens)).negated()
                    return PolicyLossOutput(loss: loss, metrics: [LossMetric("loss", try loss.detached())])
                }.metrics[0].value
            }
        }
    }

    private static func measure(
        _ model: any CausalLanguageModel, _ device: Device, _ repeats: Int, _ body: () throws -> Double
    ) throws -> Measurement {
        _ = try body()
        try device.synchronize()
        var result = Measurement(dtype: "\(model.dtype)", seconds: [], peakBytes: 0)
        for _ in 0..<repeats {
            let start = ContinuousClock.now
            result.loss = try body()
            try device.synchronize()
            result.seconds.append((ContinuousClock.now - start) / .seconds(1))
        }
        result.peakBytes = try device.memory().peakAllocated
        return result
    }
}
