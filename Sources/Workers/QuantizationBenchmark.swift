public import Models
import RolloutCore
import RolloutEngine
public import TensorCore

/// What sampling from quantised weights costs in quality and gains in speed; `fledge bench quantization` prints it.
public struct QuantizationBenchmark: Sendable {
    /// Tokens a second of whole generation calls.
    public struct Speed: Sendable {
        public var rows: Int
        public var full: Double
        public var quantized: Double
    }

    public private(set) var dtype = ""
    public private(set) var loss = QuantizationLoss()
    public private(set) var speeds: [Speed] = []
    /// Of the projections that are quantised.
    public private(set) var copyBytes = 0, weightBytes = 0
    /// To make the copies.
    public private(set) var seconds = 0.0

    /// - Parameters:
    ///   - text: real text, read in pieces of `length` tokens, `tokens` at most.
    ///   - rows: batch sizes of the speeds, each with answers of `newTokens` tokens to pieces of 16.
    /// - Throws: ``WorkerError`` with code `badData` for a text of fewer than `length` tokens.
    public static func run(
        _ plan: PolicyWorker.Plan, scheme: WeightQuantization, text: String, tokens: Int, length: Int, rows: [Int],
        newTokens: Int
    ) async throws -> QuantizationBenchmark {
        let worker = PolicyWorker(plan)
        let processor = try await worker.load()
        let ids = try processor.encode(text)
        guard ids.count >= length, length > 16 else {
            throw WorkerError(
                .badData,
                "the text has \(ids.count) tokens; give one of at least \(length), the length of a piece (17 or more)")
        }
        return try await worker.withModel { model, device in
            var result = QuantizationBenchmark()
            result.dtype = "\(model.dtype)"
            let start = ContinuousClock.now
            try withNoGrad { try model.quantizeProjections(scheme, rows: rows.max() ?? 1) }
            try device.synchronize()
            result.seconds = (ContinuousClock.now - start) / .seconds(1)
            (result.copyBytes, result.weightBytes) = model.quantizedBytes
            for first in stride(from: 0, through: min(ids.count, tokens) - length, by: length) {
                try result.loss.add(Array(ids[first..<first + length]), model: model)
            }
            model.unpackProjections()
            for count in rows {
                let requests = (0..<count).map { row in
                    let first = row * 7 % (ids.count - 16)
                    return RolloutRequest(
                        prompt: Array(ids[first..<first + 16]),
                        sampling: SamplingParameters(maxTokens: newTokens, seed: UInt64(row)))
                }
                func rate(_ quantization: WeightQuantization?) throws -> Double {
                    let engine = RolloutEngine(model: model, options: .init(maxRows: count, quantization: quantization))
                    _ = try engine.generate(requests)
                    let start = ContinuousClock.now
                    _ = try engine.generate(requests)
                    try device.synchronize()
                    let seconds = (ContinuousClock.now - start) / .seconds(1)
                    model.unpackProjections()
                    return Double(count * newTokens) / seconds
                }
                result.speeds.append(Speed(rows: count, full: try rate(nil), quantized: try rate(scheme)))
            }
            return result
        }
    }
}
