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
    /// Of the whole batch.
    private let targetCount: Int
    /// The ranks that have other sequences; nil: none.
    private let parallel: DataParallel?

    /// - Parameter parallel: has the model's parameters shared out.
    init(
        _ model: any CausalLanguageModel, _ settings: TrainingBenchmark.Settings, _ parallel: DataParallel? = nil
    ) throws {
        self.parallel = parallel
        self.model = model
        self.settings = settings
        forward = PackedForward(
            model: model, logitsChunk: settings.logitsChunk, sharesPrefixes: settings.sharesPrefixes,
            kernels: settings.kernels)
        sequences = Self.sequences(settings, vocabulary: model.shape.vocabulary, rank: parallel?.rank ?? 0)
        let longest = sequences.map { $0.prompt.count + $0.response.count }.max() ?? 0
        guard longest <= model.shape.maxPositions else {
            throw WorkerError(
                .badSetting, "sequences of \(longest) tokens: the shape knows \(model.shape.maxPositions) positions")
        }
        micros = MicroBatches.split(
            sequences, indices: Array(sequences.indices), tokenBudget: settings.microBatchTokens ?? .max,
            sharesPrefixes: settings.sharesPrefixes)
        targetCount = sequences.reduce(0) { $0 + $1.response.count } * (parallel?.count ?? 1)
        var optimizerSettings = settings.objective == .score ? nil : settings.states.optimizer
        if settings.offloadedMoments > 0, model.device.isCUDA {
            optimizerSettings?.offloadsMoments = true
            optimizerSettings?.offloadedMoments = settings.offloadedMoments
        }
        optimizer = try optimizerSettings.map {
            try parallel?.optimizer($0) ?? AdamW(parameters: model.parameters, settings: $0)
        }
        if settings.objective != .score, parallel == nil {
            for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        }
    }

    /// A step that has been launched.
    final class Pending {
        private let total: Tensor?
        private let end: DeviceEvent?

        fileprivate init(_ total: Tensor?, on device: Device) throws(TorchError) {
            self.total = total
            end = device.isCUDA ? try DeviceEvent(on: device) : nil
        }

        /// Waits for the step, whatever has been launched since.
        func wait() throws(TorchError) {
            if end != nil { try end!.synchronize() }
        }

        /// This rank's share of the loss; waits for all that has been launched.
        func loss() throws(TorchError) -> Double { try total?.item() ?? .nan }
    }

    func enqueue() throws -> Pending {
        computedTokens = 0
        var loss: Tensor?
        func add(_ own: Tensor) throws { loss = try loss?.adding(own) ?? own }
        if let parallel {
            try parallel.forEach(micros) { micro, isLast in
                if settings.objective == .score {
                    try add(try pass(micro))
                } else {
                    try add(try parallel.parameters.backward(isLast: isLast) { try pass(micro) })
                }
            }
        } else {
            for (index, micro) in micros.enumerated() {
                try StatePrefetch.around(model, optimizer, isLast: index == micros.count - 1) { try add(pass(micro)) }
                try optimizer?.gatherGrads()
            }
        }
        if let optimizer {
            _ = try optimizer.beginStep(learningRate: 1e-6, maxNorm: 0)
        } else if let parallel {
            parallel.parameters.clearGradients()
        } else {
            for parameter in model.parameters { try parameter.tensor.setGrad(nil) }
        }
        return try Pending(loss, on: model.device)
    }

    /// Forward, and backward where there is any.
    private func pass(_ micro: [Int]?) throws -> Tensor {
        guard let micro else { return try idle() }
        let batch = micro.map { sequences[$0] }
        switch settings.objective {
        case .likelihood: return try withGrad { try likelihood(batch) }
        case .policy: return try withGrad { try policy(batch) }
        case .score: return try withNoGrad { try score(batch) }
        }
    }

    /// In place of a micro-batch that another rank has more.
    private func idle() throws -> Tensor {
        guard let parallel else { preconditionFailure("no other rank") }
        if settings.objective == .score { return try withNoGrad { try parallel.idle() } }
        let nothing = try withGrad { try parallel.idle() }
        try nothing.backward()
        return try nothing.detached()
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

    /// Rank after rank, the ranks' rows are those that one process would have of all of them.
    private static func sequences(
        _ settings: TrainingBenchmark.Settings, vocabulary: Int, rank: Int
    ) -> [TrainingSequence] {
        func tokens(_ count: Int, _ stream: Int) -> [Int32] {
            (0..<count).map {
                Int32(SplitMix64.seed(settings.seed, UInt64(stream), UInt64($0)) % UInt64(vocabulary))
            }
        }
        let rows = rank * settings.rows..<(rank + 1) * settings.rows
        guard let groups = settings.groups else {
            return rows.map { row in
                let ids = tokens(settings.length, row)
                return TrainingSequence(prompt: [ids[0]], response: Array(ids.dropFirst()))
            }
        }
        return rows.flatMap { row in
            let prompt = tokens(groups.prompt, row * (groups.answers + 1))
            return (0..<groups.answers).map {
                TrainingSequence(
                    prompt: prompt, response: tokens(groups.answer, row * (groups.answers + 1) + $0 + 1))
            }
        }
    }
}
