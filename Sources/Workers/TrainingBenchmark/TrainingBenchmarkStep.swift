import Models
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
    private let optimizer: BenchmarkOptimizer
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
        optimizer = try BenchmarkOptimizer(
            model, settings.objective == .score ? TrainingBenchmark.States.none : settings.states)
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
            try optimizer.gather()
        }
        try optimizer.step()
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
        let ratio = try outputs.logProbs.subtracting(outputs.logProbs.detached()).exp()
        let loss = try ratio.multiplied(by: outputs.responseMask).sum().divided(by: Double(targetCount)).negated()
        try loss.backward()
        return try loss.detached()
    }

    private func score(_ batch: [TrainingSequence]) throws -> Tensor {
        let outputs = try forward(batch)
        computedTokens += outputs.computedTokens
        return try outputs.logProbs.multiplied(by: outputs.responseMask).sum().divided(by: Double(targetCount)).negated()
    }

    /// What computes attention of the first micro-batch.
    func attention() throws -> String {
        let segments = Pack((micros.first ?? []).map { sequences[$0] }, sharesPrefixes: settings.sharesPrefixes).segments
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
                Int32(SplitMix64.seed(settings.seed &+ UInt64(stream), UInt64($0)) % UInt64(vocabulary))
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

/// AdamW with states of the kind that is measured.
private enum BenchmarkOptimizer {
    case none([Parameter])
    case masters(AdamW)
    case plain(PlainAdamW)

    init(_ model: any CausalLanguageModel, _ states: TrainingBenchmark.States) throws {
        switch states {
        case .none: self = .none(model.parameters)
        case .float32: self = .masters(try AdamW(parameters: model.parameters, settings: .init()))
        case .bf16: self = .plain(PlainAdamW(model.parameters))
        }
    }

    func gather() throws {
        if case .masters(let optimizer) = self { try optimizer.gatherGrads() }
    }

    func step() throws {
        switch self {
        case .none(let parameters): for parameter in parameters { try parameter.tensor.setGrad(nil) }
        case .masters(let optimizer): _ = try optimizer.step(learningRate: 1e-6, maxNorm: 0)
        case .plain(let optimizer): try optimizer.step()
        }
    }
}

/// AdamW in the parameters' own type, gradients and moments too, as a plain training script has it.
private final class PlainAdamW {
    private let parameters: [Tensor]
    private var expAvgs: [Tensor] = [], expAvgSqs: [Tensor] = [], steps: [Tensor] = []

    init(_ parameters: [Parameter]) { self.parameters = parameters.map(\.tensor) }

    func step() throws {
        try withNoGrad {
            if steps.isEmpty {
                for parameter in parameters {
                    func zeros() throws(TorchError) -> Tensor {
                        try Tensor.zeros(parameter.shape, dtype: parameter.dtype, device: parameter.device)
                    }
                    expAvgs.append(try zeros())
                    expAvgSqs.append(try zeros())
                    steps.append(try Tensor.zeros([], device: parameter.device))
                }
            }
            let live = try parameters.indices.compactMap { index in
                try parameters[index].grad().map { (index: index, grad: $0) }
            }
            try fusedAdamW(
                parameters: live.map { parameters[$0.index] }, grads: live.map(\.grad),
                expAvgs: live.map { expAvgs[$0.index] }, expAvgSqs: live.map { expAvgSqs[$0.index] },
                steps: live.map { steps[$0.index] }, options: AdamWOptions(learningRate: 1e-6, weightDecay: 0))
            for parameter in parameters { try parameter.setGrad(nil) }
        }
    }
}
