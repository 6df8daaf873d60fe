public import Models
public import TensorCore

/// A value head with its optimizer; its gradients come from the policy's own passes.
public final class TrainedValueHead {
    public let head: ValueHead
    public let optimizer: AdamW
    public let schedule: LearningRateSchedule

    public init(_ head: ValueHead, optimizer: AdamW, schedule: LearningRateSchedule) {
        self.head = head
        self.optimizer = optimizer
        self.schedule = schedule
    }

    /// Steps with the gradients that backward passes have left.
    func step(maxNorm: Double) throws(TorchError) {
        try optimizer.settle()
        try optimizer.gatherGrads()
        _ = try optimizer.beginStep(learningRate: schedule.rate(step: optimizer.stepCount), maxNorm: maxNorm)
    }
}

/// One sequence of a critic's update.
public struct ValueSample: Sendable {
    public var sequence: TrainingSequence
    /// One value an answer token: of its position before the update, and what it is to become.
    public var values, returns: [Float]
    /// Which of them are learned; nil: all.
    public var responseMask: [Bool]?

    public init(sequence: TrainingSequence, values: [Float], returns: [Float], responseMask: [Bool]? = nil) {
        self.sequence = sequence
        self.values = values
        self.returns = returns
        self.responseMask = responseMask
    }

    var learnedCount: Int { responseMask.map { $0.count { $0 } } ?? sequence.response.count }
}

/// What a value loss sees of one micro-batch: rows padded on the right, float32 `[B, L]`.
public struct ValueLossInputs {
    /// With gradients.
    public var predictions: Tensor
    public var oldValues, returns, responseMask: Tensor
    public var totals: BatchTotals

    public init(
        predictions: Tensor, oldValues: Tensor, returns: Tensor, responseMask: Tensor, totals: BatchTotals
    ) {
        self.predictions = predictions
        self.oldValues = oldValues
        self.returns = returns
        self.responseMask = responseMask
        self.totals = totals
    }
}

public typealias ValueLossFunction = (ValueLossInputs) throws -> LossOutput

/// Trains a critic: packed micro-batches by token budget, any loss. Values are read at the tokens that predict the answer's.
public final class ValueTrainer {
    public struct Settings: Sendable, Hashable {
        public var microBatchTokens: Int
        public var gradClip: Double
        public var sharesPrefixes: Bool

        public init(microBatchTokens: Int = 4096, gradClip: Double = 1, sharesPrefixes: Bool = true) {
            self.microBatchTokens = microBatchTokens
            self.gradClip = gradClip
            self.sharesPrefixes = sharesPrefixes
        }
    }

    public let model: ScoringModel
    public let optimizer: AdamW
    public let schedule: LearningRateSchedule
    public let settings: Settings
    /// The ranks that share batches and parameters out among them; they make the same calls.
    public let parallel: DataParallel?

    /// - Throws: ``ModelError``, `unsupported`, for a model that gives more than one number.
    public init(
        model: ScoringModel, optimizer: AdamW, schedule: LearningRateSchedule, settings: Settings = Settings(),
        parallel: DataParallel? = nil
    ) throws {
        guard model.labels == 1 else {
            throw ModelError(
                .unsupported, "a value is one number a token; this \(model.architecture) gives \(model.labels)")
        }
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.settings = settings
        self.parallel = parallel
    }

    private var accumulation: GradientAccumulation {
        GradientAccumulation(
            model: model, optimizer: optimizer, schedule: schedule, gradClip: settings.gradClip, parallel: parallel)
    }

    /// Values at the predictors of the answers' tokens, `[B, L]` with gradients, and the tokens that were computed.
    func forward(_ sequences: [TrainingSequence]) throws -> (values: Tensor, computedTokens: Int) {
        let straddles = model.shape.straddlesRotarySwitch(sequences.map { $0.prompt.count + $0.response.count - 1 })
        let pack = Pack(sequences, sharesPrefixes: settings.sharesPrefixes && !straddles), device = model.device
        let hidden_TC = try model.hiddenStates(
            ids: Tensor(uploading: pack.ids, to: device), positions: Tensor(uploading: pack.positions, to: device),
            attention: PackedAttention(segments: pack.segments))
        let values_R = try model.scores(
            ofHidden: hidden_TC.indexSelect(0, Tensor(uploading: pack.predictors, to: device))
        ).squeezed(1)
        return (try Padding(lengths: pack.responseLengths).pad(values_R), pack.tokenCount)
    }

    private func microBatches(_ sequences: [TrainingSequence], _ indices: [Int]) throws(TorchError) -> [[Int]] {
        try MicroBatches.ofEqualWork(
            sequences, indices: indices, tokenBudget: settings.microBatchTokens,
            sharesPrefixes: settings.sharesPrefixes, over: parallel)
    }

    /// The value of every answer token's position under the weights as they are, without gradients; of this rank's sequences.
    public func values(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        var all = [[Float]](repeating: [], count: sequences.count)
        let micros = try microBatches(sequences, Array(sequences.indices))
        model.unpackProjections()
        var passes: [(micro: [Int], values: Tensor)] = []
        func pass(_ micro: [Int]) throws { passes.append((micro, try forward(micro.map { sequences[$0] }).values)) }
        try withNoGrad {
            if let parallel {
                try parallel.forEach(micros) { micro, _ in
                    if let micro { try pass(micro) } else { _ = try parallel.idle() }
                }
            } else {
                try micros.forEach(pass)
            }
            // Read when all are launched.
            for (micro, values) in passes {
                let padding = Padding(lengths: micro.map { sequences[$0].response.count })
                for (index, row) in zip(micro, try padding.rows(values)) { all[index] = row }
            }
        }
        return all
    }

    /// The values of sequences that all ranks have: each computes its share, and all get all.
    public func valuesShared(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        guard let parallel else { return try values(sequences) }
        let share = parallel.share(of: sequences, sharesPrefixes: settings.sharesPrefixes)
        return try parallel.joined(values(share.map { sequences[$0] }), of: share, total: sequences.count)
    }

    /// One optimizer step on a mini-batch that all ranks have, launched and not waited for.
    public func enqueueShared(_ samples: [ValueSample], loss: ValueLossFunction) throws -> PendingPolicyStep {
        guard let parallel else { return try enqueue(samples, loss: loss) }
        let share = parallel.share(of: samples.map(\.sequence), sharesPrefixes: settings.sharesPrefixes)
        return try enqueue(share.map { samples[$0] }, loss: loss)
    }

    /// The same on this rank's share.
    public func enqueue(_ samples: [ValueSample], loss: ValueLossFunction) throws -> PendingPolicyStep {
        let gathered = try gather(samples, loss: loss)
        gathered.learningRate = try accumulation.learningRate()
        if gathered.microBatches > 0 { gathered.step = try accumulation.step(learningRate: gathered.learningRate) }
        return gathered
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    func accumulate(_ samples: [ValueSample], loss: ValueLossFunction) throws -> PolicyStepReport {
        try gather(samples, loss: loss).report()
    }

    private func gather(_ samples: [ValueSample], loss: ValueLossFunction) throws -> PendingPolicyStep {
        let sequences = samples.map(\.sequence), live = samples.indices.filter { samples[$0].learnedCount > 0 }
        var totals = BatchTotals(
            sequences: live.count, tokens: samples.reduce(0) { $0 + $1.learnedCount },
            width: sequences.map(\.response.count).max() ?? 0)
        let micros = try microBatches(sequences, live)
        var microCount = micros.count
        if let parallel {
            totals = try parallel.whole(totals)
            microCount = try parallel.greatest(microCount)
        }
        let report = PendingPolicyStep(microBatches: microCount, lossTokens: totals.tokens, parallel: parallel)
        report.metrics = try accumulation.accumulate(micros) { micro in
            let batch = micro.map { samples[$0] }
            let (predictions, computed) = try forward(batch.map(\.sequence))
            report.computedTokens += computed
            let padding = Padding(lengths: batch.map(\.sequence.response.count)), device = model.device
            let mask = batch.map { sample in
                sample.responseMask?.map { $0 ? Float(1) : 0 } ?? [Float](repeating: 1, count: sample.returns.count)
            }
            return try loss(
                ValueLossInputs(
                    predictions: predictions, oldValues: padding.pad(batch.map(\.values), device: device),
                    returns: padding.pad(batch.map(\.returns), device: device),
                    responseMask: padding.pad(mask, device: device), totals: totals))
        }
        return report
    }
}
