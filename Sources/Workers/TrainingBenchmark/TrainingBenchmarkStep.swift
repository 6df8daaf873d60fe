import Models
import RolloutCore
import TensorCore
import TrainingEngine

/// One step of the training benchmark, run again and again on the same random batch.
final class TrainingBenchmarkStep {
    let micros: [[Int]]
    private(set) var computedTokens = 0

    private let model: any CausalLanguageModel
    private let settings: TrainingBenchmark.Settings
    private let forward: PackedForward
    private let sequences: [TrainingSequence]
    /// nil: gradients are dropped.
    private let optimizer: AdamW?
    private let targetCount: Int

    init(_ model: any CausalLanguageModel, _ settings: TrainingBenchmark.Settings) throws {
        self.model = model
        self.settings = settings
        forward = PackedForward(
            model: model, logitsChunk: settings.logitsChunk, sharesPrefixes: settings.sharesPrefixes,
            kernels: settings.kernels)
        sequences = Self.sequences(settings, vocabulary: model.shape.vocabulary)
        let longest = sequences.map { $0.prompt.count + $0.response.count }.max() ?? 0
        guard longest <= model.shape.maxPositions else {
            throw WorkerError(
                .badSetting, "sequences of \(longest) tokens: the shape knows \(model.shape.maxPositions) positions")
        }
        micros = MicroBatches.split(
            sequences, indices: Array(sequences.indices), tokenBudget: settings.microBatchTokens ?? .max,
            sharesPrefixes: settings.sharesPrefixes)
        targetCount = sequences.reduce(0) { $0 + $1.response.count }
        var optimizerSettings = settings.objective == .score ? nil : settings.states.optimizer
        if settings.offloadsMoments { optimizerSettings?.offloadsMoments = model.device.isCUDA }
        optimizer = try optimizerSettings.map { try AdamW(parameters: model.parameters, settings: $0) }
        if settings.objective != .score {
            for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        }
    }

    /// The loss.
    func run() throws -> Double {
        computedTokens = 0
        var loss: Tensor?
        for micro in micros {
            let batch = micro.map { sequences[$0] }
            let own =
                switch settings.objective {
                case .likelihood: try withGrad { try likelihood(batch) }
                case .policy: try withGrad { try policy(batch) }
                case .score: try withNoGrad { try score(batch) }
                }
            loss = try loss?.adding(own) ?? own
            try optimizer?.gatherGrads()
        }
        if let optimizer {
            _ = try optimizer.step(learningRate: 1e-6, maxNorm: 0)
        } else {
            for parameter in model.parameters { try parameter.tensor.setGrad(nil) }
        }
        return try loss?.item() ?? .nan
    }

    private func likelihood(_ batch: [TrainingSequence]) throws -> Tensor {
        let weight = -1 / Float(targetCount)
        let outputs = try forward.backward(
            batch, logProbGrads: batch.map { [Float](repeating: weight, count: $0.response.count) })
        computedTokens += outputs.computedTokens
        return outputs.loss
    }

    private func policy(_ batch: [TrainingSequence]) throws -> Tensor {
        let outputs = try forward(batch)
        computedTokens += outputs.computedTokens
        let loss = try outputs.logProbs.multiplied(by: outputs.responseMask).sum().divided(by: Double(targetCount))
            .negated()
        try loss.backward()
        return try loss.detached()
    }

    private func score(_ batch: [TrainingSequence]) throws -> Tensor {
        let outputs = try forward(batch)
        computedTokens += outputs.computedTokens
        return try outputs.logProbs.multiplied(by: outputs.responseMask).sum().divided(by: Double(targetCount))
            .negated()
    }

    /// What computes attention of the first micro-batch.
    func attention() throws -> String {
        let segments = Pack((micros.first ?? []).map { sequences[$0] }, sharesPrefixes: settings.sharesPrefixes)
            .segments
        let tokens = segments.reduce(0) { $0 + $1.length }, shape = model.shape
        func heads(_ count: Int) throws(TorchError) -> Tensor {
            try Tensor.empty([tokens, count, shape.headDim], dtype: model.dtype, device: model.device)
        }
        let key = try heads(shape.keyValueHeads)
        return try AttentionPlan(segments, kernels: settings.kernels).backend(
            query: heads(shape.queryHeads), key: key, value: key, kind: AttentionKind(scale: 1))
    }

    private static func sequences(_ settings: TrainingBenchmark.Settings, vocabulary: Int) -> [TrainingSequence] {
        func tokens(_ count: Int, _ stream: Int) -> [Int32] {
            (0..<count).map {
                Int32(SplitMix64.seed(settings.seed, UInt64(stream), UInt64($0)) % UInt64(vocabulary))
            }
        }
        guard let groups = settings.groups else {
            return (0..<settings.rows).map { row in
                let ids = tokens(settings.length, row)
                return TrainingSequence(prompt: [ids[0]], response: Array(ids.dropFirst()))
            }
        }
        return (0..<settings.rows).flatMap { row in
            let prompt = tokens(groups.prompt, row * (groups.answers + 1))
            return (0..<groups.answers).map {
                TrainingSequence(
                    prompt: prompt, response: tokens(groups.answer, row * (groups.answers + 1) + $0 + 1))
            }
        }
    }
}
