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

    /// The tokens that are learned.
    var learnedCount: Int { responseMask.map { $0.count { $0 } } ?? sequence.response.count }

    public init(
        sequence: TrainingSequence, oldLogProbs: [Float]? = nil, advantages: [Float], rolloutLogProbs: [Float],
        refLogProbs: [Float]? = nil, responseMask: [Bool]? = nil, importanceWeights: [Float]? = nil
    ) {
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

    public init(
        model: any CausalLanguageModel, optimizer: AdamW, schedule: LearningRateSchedule,
        settings: Settings = Settings(), parallel: DataParallel? = nil
    ) {
        self.parallel = parallel
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.settings = settings
    }

    private var forward: PackedForward {
        PackedForward(
            model: model, temperature: settings.temperature, logitsChunk: settings.logitsChunk,
            sharesPrefixes: settings.sharesPrefixes)
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
            for (micro, outputs) in passes {
                let padding = Padding(lengths: micro.map { sequences[$0].response.count })
                for (index, values) in zip(micro, try padding.rows(outputs.logProbs)) { logProbs[index] = values }
                for (index, values) in zip(micro, try padding.rows(outputs.entropies)) { entropies[index] = values }
            }
        }
        return (logProbs, entropies)
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
        let split = MicroBatches.split(
            sequences, indices: indices, tokenBudget: settings.microBatchTokens, sharesPrefixes: settings.sharesPrefixes
        )
        guard let parallel, parallel.count > 1 else { return split }
        return MicroBatches.balanced(
            sequences, indices: indices, into: try parallel.greatest(split.count),
            tokenBudget: settings.microBatchTokens, work: parallel.work, sharesPrefixes: settings.sharesPrefixes)
            ?? split
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
        if gathered.microBatches > 0 { gathered.step = try accumulation.step(learningRate: gathered.learningRate) }
        return gathered
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    func accumulate(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PolicyStepReport {
        try gather(samples, loss: loss).report()
    }

    private func gather(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PendingPolicyStep {
        let sequences = samples.map(\.sequence)
        var totals = BatchTotals(
            sequences: samples.count, tokens: samples.reduce(0) { $0 + $1.learnedCount },
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
            importanceWeights: try given(\.importanceWeights), totals: totals)
    }
}
