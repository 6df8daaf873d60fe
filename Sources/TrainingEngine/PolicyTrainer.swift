public import Models
public import TensorCore

/// What a policy loss sees of one micro-batch: rows padded on the right, `[B, L]`, float32.
public struct PolicyLossInputs {
    public var logProbs, entropies, advantages, responseMask: Tensor
    /// Log-probabilities before the first of several steps on one batch; where there is but one step, `logProbs` themselves
    /// without their gradient.
    public var oldLogProbs: Tensor
    /// Log-probabilities under the reference policy, where the loss asks for them.
    public var refLogProbs: Tensor?
    /// Log-probabilities that the sampler recorded.
    public var rolloutLogProbs: Tensor
    /// Weights of the tokens' losses that correct for another sampling policy; nil: 1 for all.
    public var importanceWeights: Tensor?
    /// Where the policy has a value head: what it gives, with gradients; what it gave before the update; and what that is to become.
    public var values: (predictions: Tensor, old: Tensor, returns: Tensor)?
    public var totals: BatchTotals
}

/// Counts over the whole mini-batch, so that a loss does not depend on how it is split.
public struct BatchTotals: Sendable, Hashable {
    public var sequences, tokens: Int
    /// The longest answer of the mini-batch.
    public var width: Int

    public init(sequences: Int, tokens: Int, width: Int) {
        self.sequences = sequences
        self.tokens = tokens
        self.width = width
    }
}

/// A policy loss and what to report of it.
public typealias PolicyLossOutput = LossOutput

public typealias PolicyLossFunction = (PolicyLossInputs) throws -> PolicyLossOutput

/// One sequence of a policy update.
public struct PolicySample: Sendable {
    public var sequence: TrainingSequence
    /// One value an answer token.
    public var advantages, rolloutLogProbs: [Float]
    public var oldLogProbs, refLogProbs: [Float]?
    /// Which of them are learned; nil: all.
    public var responseMask: [Bool]?
    /// Weights of the tokens' losses that correct for another sampling policy; nil: 1 for all.
    public var importanceWeights: [Float]?
    /// Of each position, and what they are to become; where the policy has a value head.
    public var values, returns: [Float]?

    /// The tokens that are learned.
    var learnedCount: Int { responseMask.map { $0.count { $0 } } ?? sequence.response.count }

    public init(
        sequence: TrainingSequence, oldLogProbs: [Float]? = nil, advantages: [Float], rolloutLogProbs: [Float],
        refLogProbs: [Float]? = nil, responseMask: [Bool]? = nil, importanceWeights: [Float]? = nil,
        values: [Float]? = nil, returns: [Float]? = nil
    ) {
        self.values = values
        self.returns = returns
        self.responseMask = responseMask
        self.importanceWeights = importanceWeights
        self.sequence = sequence
        self.oldLogProbs = oldLogProbs
        self.advantages = advantages
        self.rolloutLogProbs = rolloutLogProbs
        self.refLogProbs = refLogProbs
    }
}

/// What one optimizer step did.
public struct PolicyStepReport: Sendable {
    public var metrics: [(name: String, value: Double)]
    public var gradNorm, learningRate: Double
    /// False when the gradient was not finite and the step was left out.
    public var stepped: Bool
    public var microBatches: Int
    /// Tokens that the forward passes computed.
    public var computedTokens: Int
    /// Answer tokens that took part in the loss, out of all of the mini-batch.
    public var lossTokens: Int
}

/// Trains a policy: packed micro-batches by token budget, any loss. It knows nothing of the algorithm.
public final class PolicyTrainer {
    public struct Settings: Sendable, Hashable {
        public var microBatchTokens: Int
        /// Where set, micro-batches are of so many sequences, whatever their lengths.
        public var microBatchSequences: Int?
        public var gradClip: Double
        public var temperature: Double
        public var sharesPrefixes: Bool
        /// Rows of logits that exist at a time; nil: as many as suit the device.
        public var logitsChunk: Int?
        /// Leaves sequences whose advantages are all zero out of the forward pass, where the loss has no other term: their
        /// gradient is zero. They count in the totals all the same, so the loss stays what it is.
        public var skipsZeroAdvantages: Bool
        /// Weight of the loss that pulls a mixture's experts towards equal shares; 0: none.
        public var routerAuxLossCoefficient: Double
        public init(
            microBatchTokens: Int = 4096, gradClip: Double = 1, temperature: Double = 1, sharesPrefixes: Bool = true,
            logitsChunk: Int? = nil, skipsZeroAdvantages: Bool = false, routerAuxLossCoefficient: Double = 0,
            microBatchSequences: Int? = nil
        ) {
            self.microBatchSequences = microBatchSequences
            self.routerAuxLossCoefficient = routerAuxLossCoefficient
            self.skipsZeroAdvantages = skipsZeroAdvantages
            self.microBatchTokens = microBatchTokens
            self.gradClip = gradClip
            self.temperature = temperature
            self.sharesPrefixes = sharesPrefixes
            self.logitsChunk = logitsChunk
        }
    }

    public let model: any CausalLanguageModel
    public let optimizer: AdamW
    public let schedule: LearningRateSchedule
    public let settings: Settings
    /// The ranks that share batches and parameters out among them: then ``update(_:loss:)`` and ``score(_:)`` are given this rank's
    /// sequences, and all ranks call them together, with reports read in the same order.
    public let parallel: DataParallel?
    /// What learns values on the policy's last layer, with an optimizer of its own. In one process.
    public let valueHead: TrainedValueHead?

    public init(
        model: any CausalLanguageModel, optimizer: AdamW, schedule: LearningRateSchedule,
        settings: Settings = Settings(), parallel: DataParallel? = nil, valueHead: TrainedValueHead? = nil
    ) {
        precondition(parallel == nil || valueHead == nil, "a value head of one rank")
        self.valueHead = valueHead
        self.parallel = parallel
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.settings = settings
    }

    private var forward: PackedForward {
        var forward = PackedForward(
            model: model, temperature: settings.temperature, logitsChunk: settings.logitsChunk,
            sharesPrefixes: settings.sharesPrefixes)
        forward.valueHead = valueHead?.head
        return forward
    }

    /// Forward passes that learn: routers are watched where their balance counts.
    private var trainingForward: PackedForward {
        var forward = forward
        forward.recordsRouting = settings.routerAuxLossCoefficient > 0
        return forward
    }

    /// Log-probabilities and entropies of every answer token under the weights as they are, without gradients.
    public func score(_ sequences: [TrainingSequence]) throws -> (logProbs: [[Float]], entropies: [[Float]]) {
        var logProbs = [[Float]](repeating: [], count: sequences.count), entropies = logProbs
        try forEachPass(sequences) { micro, outputs in
            let padding = Padding(lengths: micro.map { sequences[$0].response.count })
            for (index, values) in zip(micro, try padding.rows(outputs.logProbs)) { logProbs[index] = values }
            for (index, values) in zip(micro, try padding.rows(outputs.entropies)) { entropies[index] = values }
        }
        return (logProbs, entropies)
    }

    /// What the value head gives at every answer token's predictor.
    public func headValues(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        var values = [[Float]](repeating: [], count: sequences.count)
        try forEachPass(sequences) { micro, outputs in
            guard let found = outputs.values else { preconditionFailure("this policy has no value head") }
            let padding = Padding(lengths: micro.map { sequences[$0].response.count })
            for (index, row) in zip(micro, try padding.rows(found)) { values[index] = row }
        }
        return values
    }

    /// Σπ² of the distribution that each answer token was drawn from, of this rank's sequences.
    public func sumsPiSquared(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        var all = [[Float]](repeating: [], count: sequences.count)
        let micros = try microBatches(sequences, Array(sequences.indices))
        model.unpackProjections()
        func pass(_ micro: [Int]) throws {
            let padding = Padding(lengths: micro.map { sequences[$0].response.count })
            let sums = try forward.sumsPiSquared(micro.map { sequences[$0] })
            for (index, row) in zip(micro, try padding.rows(sums)) { all[index] = row }
        }
        try withNoGrad {
            guard let parallel else { return try micros.forEach(pass) }
            try parallel.forEach(micros) { micro, _ in
                if let micro { try pass(micro) } else { _ = try parallel.idle() }
            }
        }
        return all
    }

    /// Forward passes over micro-batches without gradients; `body` sees what each gives when all are launched.
    private func forEachPass(
        _ sequences: [TrainingSequence], _ body: (_ micro: [Int], ResponseOutputs) throws -> Void
    ) throws {
        let micros = try microBatches(sequences, Array(sequences.indices))
        // The sampler's copies of the weights may hold an adapter, or be older than the last step.
        model.unpackProjections()
        try withNoGrad {
            // Read when all are launched: no micro-batch waits for the one before.
            var passes: [(micro: [Int], outputs: ResponseOutputs)] = []
            if let pipeline = PipelinePasses(forward, parallel) {
                try pipeline.score(micros.map { $0.map { sequences[$0] } }) { passes.append((micros[$0], $1)) }
            } else if let parallel {
                try parallel.forEach(micros) { micro, _ in
                    if let micro {
                        passes.append((micro, try forward(micro.map { sequences[$0] })))
                    } else {
                        _ = try parallel.idle()
                    }
                }
            } else {
                for micro in micros { passes.append((micro, try forward(micro.map { sequences[$0] }))) }
            }
            for (micro, outputs) in passes { try body(micro, outputs) }
        }
    }

    private var accumulation: GradientAccumulation {
        GradientAccumulation(
            model: model, optimizer: optimizer, schedule: schedule, gradClip: settings.gradClip, parallel: parallel)
    }

    /// Ranks wait for one another in every layer, so theirs are of about equal work.
    private func microBatches(_ sequences: [TrainingSequence], _ indices: [Int]) throws(TorchError) -> [[Int]] {
        if let size = settings.microBatchSequences {
            return MicroBatches.split(sequences, indices: indices, size: size)
        }
        return try MicroBatches.ofEqualWork(
            sequences, indices: indices, tokenBudget: settings.microBatchTokens,
            sharesPrefixes: settings.sharesPrefixes, over: parallel)
    }

    /// One optimizer step on a mini-batch, whatever the number of micro-batches it takes.
    public func update(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PolicyStepReport {
        try enqueue(samples, loss: loss).report()
    }

    /// The same without waiting for the device at the end: the next mini-batch's work may be launched meanwhile.
    public func enqueue(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PendingPolicyStep {
        let gathered = try gather(samples, loss: loss)
        gathered.learningRate = try accumulation.learningRate()
        // Without a sequence to learn from there is no gradient, and nothing is stepped.
        if gathered.microBatches > 0 {
            gathered.step = try accumulation.step(learningRate: gathered.learningRate)
            try valueHead?.step(maxNorm: settings.gradClip)
        }
        return gathered
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    func accumulate(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PolicyStepReport {
        try gather(samples, loss: loss).report()
    }

    private func gather(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PendingPolicyStep {
        let sequences = samples.map(\.sequence)
        var totals = BatchTotals(
            sequences: samples.count { $0.learnedCount > 0 }, tokens: samples.reduce(0) { $0 + $1.learnedCount },
            width: sequences.map(\.response.count).max() ?? 0)
        let live = samples.indices.filter { index in
            samples[index].learnedCount > 0
                && (!settings.skipsZeroAdvantages || samples[index].advantages.contains { $0 != 0 })
        }
        let micros = try microBatches(sequences, live)
        var counts = [
            micros.count, live.reduce(0) { $0 + samples[$1].learnedCount },
            live.reduce(0) { $0 + sequences[$1].computedCount },
        ]
        if let parallel {
            totals = try parallel.whole(totals)
            let all = try parallel.gathered(counts)
            counts = [all.map { $0[0] }.max() ?? 0, all.reduce(0) { $0 + $1[1] }, all.reduce(0) { $0 + $1[2] }]
        }
        let report = PendingPolicyStep(microBatches: counts[0], lossTokens: counts[1], parallel: parallel)
        let allTokens = Double(counts[2])
        let balance = RouterBalance(coefficient: settings.routerAuxLossCoefficient, group: "actor")
        func output(_ micro: [Int], _ outputs: ResponseOutputs) throws -> PolicyLossOutput {
            let batch = micro.map { samples[$0] }
            var output = try loss(inputs(batch, outputs, totals))
            let tokens = batch.reduce(0) { $0 + $1.sequence.computedCount }
            try balance.add(to: &output, outputs, share: Double(tokens) / allTokens)
            report.computedTokens += outputs.computedTokens
            return output
        }
        let passes = micros.map { $0.map { sequences[$0] } }
        if let pipeline = PipelinePasses(forward, parallel) {
            model.unpackProjections()
            report.computedTokens = try pipeline.train(passes) { index, outputs in
                let output = try output(micros[index], outputs)
                try report.metrics.add(output.metrics)
                return output.loss
            }
        } else {
            report.metrics = try accumulation.accumulate(micros) { micro in
                try output(micro, trainingForward(micro.map { sequences[$0] }))
            }
        }
        return report
    }

    private func inputs(
        _ batch: [PolicySample], _ outputs: ResponseOutputs, _ totals: BatchTotals
    ) throws(TorchError) -> PolicyLossInputs {
        let padding = Padding(lengths: batch.map(\.sequence.response.count))
        let old = batch.compactMap(\.oldLogProbs), refs = batch.compactMap(\.refLogProbs)
        let device = model.device
        func given(_ values: (PolicySample) -> [Float]?) throws(TorchError) -> Tensor? {
            guard batch.contains(where: { values($0) != nil }) else { return nil }
            return try padding.pad(
                batch.map { values($0) ?? [Float](repeating: 1, count: $0.sequence.response.count) }, device: device)
        }
        return PolicyLossInputs(
            logProbs: outputs.logProbs, entropies: outputs.entropies,
            advantages: try padding.pad(batch.map(\.advantages), device: device),
            responseMask: try given { $0.responseMask.map { $0.map { $0 ? 1 : 0 } } } ?? outputs.responseMask,
            oldLogProbs: old.count == batch.count
                ? try padding.pad(old, device: device) : try outputs.logProbs.detached(),
            refLogProbs: refs.count == batch.count ? try padding.pad(refs, device: device) : nil,
            rolloutLogProbs: try padding.pad(batch.map(\.rolloutLogProbs), device: device),
            importanceWeights: try given(\.importanceWeights), values: try values(batch, outputs, padding),
            totals: totals)
    }

    private func values(
        _ batch: [PolicySample], _ outputs: ResponseOutputs, _ padding: Padding
    ) throws(TorchError) -> (predictions: Tensor, old: Tensor, returns: Tensor)? {
        let old = batch.compactMap(\.values), returns = batch.compactMap(\.returns)
        guard let predictions = outputs.values, old.count == batch.count, returns.count == batch.count else {
            return nil
        }
        return (
            predictions, try padding.pad(old, device: model.device), try padding.pad(returns, device: model.device)
        )
    }
}
