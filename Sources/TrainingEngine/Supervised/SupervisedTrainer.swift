public import Models
public import TensorCore

/// What learns: a language model by its tokens' log-probabilities, or a scoring model by its scores.
public enum SupervisedNetwork {
    case language(any CausalLanguageModel)
    case scoring(ScoringModel)

    public var model: any SequenceModel {
        switch self {
        case .language(let model): model
        case .scoring(let model): model
        }
    }

    var reading: SupervisedReading {
        switch self {
        case .language: .tokenLogProbs
        case .scoring: .sequenceScores
        }
    }
}

/// What one optimizer step on a batch of examples did.
public struct SupervisedStepReport: Sendable {
    public var metrics: [(name: String, value: Double)]
    public var gradNorm, learningRate: Double
    /// False when the gradient was not finite and the step was left out.
    public var stepped: Bool
    public var microBatches: Int
    /// Tokens that the forward passes computed, and those of them that were learnt.
    public var computedTokens, learntTokens: Int
}

/// Trains on examples: packed micro-batches by token budget, any objective. It knows nothing of the objective.
public final class SupervisedTrainer {
    public struct Settings: Sendable, Hashable {
        public var microBatchTokens: Int
        public var gradClip: Double
        public var sharesPrefixes: Bool
        /// Rows of logits that exist at a time; nil: as many as suit the device.
        public var logitsChunk: Int?
        /// Weight of the loss that pulls a mixture's experts towards equal shares; 0: none.
        public var routerAuxLossCoefficient: Double

        public init(
            microBatchTokens: Int = 4096, gradClip: Double = 1, sharesPrefixes: Bool = true, logitsChunk: Int? = nil,
            routerAuxLossCoefficient: Double = 0
        ) {
            self.microBatchTokens = microBatchTokens
            self.gradClip = gradClip
            self.sharesPrefixes = sharesPrefixes
            self.logitsChunk = logitsChunk
            self.routerAuxLossCoefficient = routerAuxLossCoefficient
        }
    }

    public let network: SupervisedNetwork
    public let objective: any SupervisedObjective
    public let optimizer: AdamW
    public let schedule: LearningRateSchedule
    public let settings: Settings
    /// The ranks that share examples and parameters out among them: each is given all examples and computes its share. They make the
    /// same calls and get the same results.
    public let parallel: DataParallel?
    /// Called for each micro-batch: passes of ranks that share no weights show the others nothing else.
    public var onPass: () -> Void = {}

    public init(
        network: SupervisedNetwork, objective: any SupervisedObjective, optimizer: AdamW,
        schedule: LearningRateSchedule, settings: Settings = Settings(), parallel: DataParallel? = nil
    ) {
        precondition(network.reading == objective.reading, "an objective on \(objective.reading) of another model")
        self.parallel = parallel
        self.network = network
        self.objective = objective
        self.optimizer = optimizer
        self.schedule = schedule
        self.settings = settings
    }

    private var accumulation: GradientAccumulation {
        GradientAccumulation(
            model: network.model, optimizer: optimizer, schedule: schedule, gradClip: settings.gradClip,
            parallel: parallel)
    }

    /// This rank's examples, as places in the whole batch, in micro-batches.
    private func split(_ examples: [SupervisedExample]) throws(TorchError) -> [[Int]] {
        try MicroBatches.ofShare(
            examples, tokenBudget: settings.microBatchTokens, sharesPrefixes: settings.sharesPrefixes, over: parallel)
    }

    /// One optimizer step on a batch, whatever the number of micro-batches it takes.
    public func update(_ examples: [SupervisedExample]) throws -> SupervisedStepReport {
        let gathered = try gather(examples)
        let learningRate = try accumulation.learningRate()
        let step = try accumulation.step(learningRate: learningRate)
        // Read when all is launched.
        var report = try gathered.report(over: parallel)
        (report.gradNorm, report.stepped) = try step.result()
        report.learningRate = learningRate
        return report
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    func accumulate(_ examples: [SupervisedExample]) throws -> SupervisedStepReport {
        try gather(examples).report(over: parallel)
    }

    /// What micro-batches have computed; its numbers may be on the device still.
    private struct Gathered {
        var metrics = PendingMetrics()
        var microBatches: Int
        var computedTokens = 0
        var learntTokens: Int
        /// What divides means over tokens.
        var lossTokens: Int

        /// Of all ranks.
        func report(over parallel: DataParallel?) throws -> SupervisedStepReport {
            SupervisedStepReport(
                metrics: try metrics.sums(lossTokens: lossTokens, over: parallel).values, gradNorm: 0, learningRate: 0,
                stepped: false, microBatches: try parallel?.greatest(microBatches) ?? microBatches,
                computedTokens: try parallel?.sum(computedTokens) ?? computedTokens, learntTokens: learntTokens)
        }
    }

    private func gather(_ examples: [SupervisedExample]) throws -> Gathered {
        // Every rank has the whole batch, and so its counts.
        let micros = try split(examples), totals = SupervisedTotals(examples)
        let balance = RouterBalance(coefficient: settings.routerAuxLossCoefficient, group: "train")
        let allTokens = examples.reduce(0) { $0 + $1.inputCount }
        var gathered = Gathered(
            microBatches: micros.count, learntTokens: examples.reduce(0) { $0 + $1.learntTokens },
            lossTokens: totals.tokens)
        if let pipeline {
            network.model.unpackProjections()
            let passes = micros.map { tokens(of: $0, in: examples) }
            gathered.computedTokens = try pipeline.train(passes) { index, outputs in
                onPass()
                let output = try objective(batch(micros[index].map { examples[$0] }, totals, outputs))
                try gathered.metrics.add(output.metrics)
                return output.loss
            }
            return gathered
        }
        gathered.metrics = try accumulation.accumulate(micros) { micro in
            let examples = micro.map { examples[$0] }
            let pass = try forward(examples, totals, isLearning: true)
            var output = try objective(pass.batch)
            output.start = pass.start
            if let outputs = pass.outputs {
                let tokens = examples.reduce(0) { $0 + $1.inputCount }
                try balance.add(to: &output, outputs, share: Double(tokens) / Double(max(1, allTokens)))
            }
            gathered.computedTokens += pass.computedTokens
            return output
        }
        return gathered
    }

    /// The objective's metrics over all examples under the weights as they are, without gradients.
    public func evaluate(_ examples: [SupervisedExample]) throws -> [(name: String, value: Double)] {
        let totals = SupervisedTotals(examples)
        var metrics = PendingMetrics()
        try forEachPass(examples, split(examples), totals) { try metrics.add(objective($1).metrics) }
        return try metrics.sums(lossTokens: totals.tokens, over: parallel).values
    }

    /// Passes over this rank's micro-batches without gradients; of a pipeline's stages the last one sees what they give.
    private func forEachPass(
        _ examples: [SupervisedExample], _ micros: [[Int]], _ totals: SupervisedTotals,
        _ body: (_ micro: [Int], SupervisedBatch) throws -> Void
    ) throws {
        // The sampler's copies of the weights may hold an adapter, or be older than the last step.
        network.model.unpackProjections()
        func pass(_ micro: [Int]) throws { try body(micro, forward(micro.map { examples[$0] }, totals).batch) }
        try withNoGrad {
            if let pipeline {
                try pipeline.score(micros.map { tokens(of: $0, in: examples) }) { index, outputs in
                    onPass()
                    try body(micros[index], batch(micros[index].map { examples[$0] }, totals, outputs))
                }
            } else if let parallel {
                try parallel.forEach(micros) { micro, _ in
                    if let micro { try pass(micro) } else { _ = try parallel.idle() }
                }
            } else {
                try micros.forEach(pass)
            }
        }
    }

    /// Where ranks share a language model's layers.
    private var pipeline: PipelinePasses? {
        guard case .language(let model) = network else { return nil }
        return PipelinePasses(forward(of: model), parallel)
    }

    private func forward(of model: any CausalLanguageModel, recordsRouting: Bool = false) -> PackedForward {
        PackedForward(
            model: model, logitsChunk: settings.logitsChunk, sharesPrefixes: settings.sharesPrefixes,
            recordsRouting: recordsRouting)
    }

    /// The examples' first sequences, then their second ones.
    private func rows(_ examples: [SupervisedExample]) -> [SupervisedSequence] {
        (0..<objective.sequencesPerExample).flatMap { place in examples.map { $0.sequences[place] } }
    }

    private func tokens(of micro: [Int], in examples: [SupervisedExample]) -> [TrainingSequence] {
        rows(micro.map { examples[$0] }).map(\.tokens)
    }

    /// Each sequence's log-probability, summed over its learnt tokens, under the weights as they are; below an adapter, where
    /// there is one: the reference.
    public func referenceLogProbs(_ examples: [SupervisedExample]) throws -> [[Float]] {
        func score() throws -> [[Float]] {
            let totals = SupervisedTotals(examples)
            var passes: [(micro: [Int], sums: Tensor)] = []
            try forEachPass(examples, split(examples), totals) { micro, batch in
                guard let mask = batch.mask else { preconditionFailure("scores have no reference") }
                passes.append((micro, try batch.values.multiplied(by: mask).sum(-1)))
            }
            // Read when all are launched.
            let rows = try passes.flatMap { micro, sums in
                let sums = try sums.values(Float.self)
                return micro.indices.map { index in
                    (0..<objective.sequencesPerExample).map { sums[$0 * micro.count + index] }
                }
            }
            guard let parallel else { return rows }
            return try parallel.joined(rows, of: passes.flatMap(\.micro), total: examples.count)
        }
        return try network.model.adapter?.disabled(score) ?? score()
    }

    private struct Pass {
        var batch: SupervisedBatch
        /// Of language models, where routers may be balanced.
        var outputs: ResponseOutputs?
        /// Where backward goes on, if the head's is done.
        var start: BackwardStart?
        var computedTokens: Int
    }

    /// - Parameter isLearning: whether gradients are wanted.
    private func forward(
        _ examples: [SupervisedExample], _ totals: SupervisedTotals, isLearning: Bool = false
    ) throws -> Pass {
        onPass()
        let rows = rows(examples), tokens = rows.map(\.tokens)
        switch network {
        case .scoring(let model):
            let (scores, computed) = try ScoringForward(model: model, sharesPrefixes: settings.sharesPrefixes)(tokens)
            return Pass(batch: try batch(examples, totals, scores), computedTokens: computed)
        case .language(let model):
            let balances = isLearning && settings.routerAuxLossCoefficient > 0 && model.experts != nil
            let forward = forward(of: model, recordsRouting: balances)
            // A second loss begins elsewhere.
            if isLearning, !balances, let gradient = objective.gradient(totals) {
                let (outputs, start) = try forward.headBackward(
                    tokens, logProbGrads: rows.map { row in row.mask.map { $0 * Float(gradient) } })
                let padding = Padding(lengths: tokens.map(\.response.count))
                var batch = try batch(examples, totals, padding.pad(outputs.logProbs))
                batch.entropies = try padding.pad(outputs.entropies)
                batch.mask = try padding.pad(rows.map(\.mask), device: model.device)
                return Pass(batch: batch, start: start, computedTokens: outputs.computedTokens)
            }
            let outputs = try forward(tokens)
            return Pass(
                batch: try batch(examples, totals, outputs), outputs: outputs, computedTokens: outputs.computedTokens)
        }
    }

    /// What an objective sees of a language model's pass.
    private func batch(
        _ examples: [SupervisedExample], _ totals: SupervisedTotals, _ outputs: ResponseOutputs
    ) throws -> SupervisedBatch {
        let rows = rows(examples), device = network.model.device
        var batch = try batch(examples, totals, outputs.logProbs)
        batch.entropies = outputs.entropies
        batch.mask = try Padding(lengths: rows.map(\.tokens.response.count)).pad(rows.map(\.mask), device: device)
        let references = (0..<objective.sequencesPerExample).flatMap { place in
            examples.compactMap { $0.references?[place] }
        }
        if references.count == rows.count { batch.references = try Tensor(uploading: references, to: device) }
        return batch
    }

    private func batch(
        _ examples: [SupervisedExample], _ totals: SupervisedTotals, _ values: Tensor
    ) throws -> SupervisedBatch {
        let margins = examples.compactMap(\.margin), isWhole = margins.count == examples.count
        return SupervisedBatch(
            values: values, margins: isWhole ? try Tensor(uploading: margins, to: network.model.device) : nil,
            count: examples.count, totals: totals)
    }
}

extension SupervisedExample {
    /// Tokens that a forward pass has of it, each sequence alone.
    var inputCount: Int { sequences.reduce(0) { $0 + $1.tokens.computedCount } }
}
