public import Models
public import TensorCore

/// What a policy loss sees of one micro-batch: rows padded on the right, `[B, L]`, float32.
public struct PolicyLossInputs {
    public var logProbs, entropies, oldLogProbs, advantages, responseMask: Tensor
    /// Log-probabilities under the reference policy, where the loss asks for them.
    public var refLogProbs: Tensor?
    /// Log-probabilities that the sampler recorded.
    public var rolloutLogProbs: Tensor
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

/// A loss and what to report of it. Every metric must be additive over micro-batches, as the loss is.
public struct PolicyLossOutput {
    public var loss: Tensor
    public var metrics: [(name: String, value: Tensor)]

    public init(loss: Tensor, metrics: [(name: String, value: Tensor)]) {
        self.loss = loss
        self.metrics = metrics
    }
}

public typealias PolicyLossFunction = (PolicyLossInputs) throws -> PolicyLossOutput

/// One sequence of a policy update.
public struct PolicySample: Sendable {
    public var sequence: TrainingSequence
    /// One value an answer token.
    public var oldLogProbs, advantages, rolloutLogProbs: [Float]
    public var refLogProbs: [Float]?

    public init(
        sequence: TrainingSequence, oldLogProbs: [Float], advantages: [Float], rolloutLogProbs: [Float],
        refLogProbs: [Float]? = nil
    ) {
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
}

/// Trains a policy: packed micro-batches by token budget, any loss. It knows nothing of the algorithm.
public final class PolicyTrainer {
    public struct Settings: Sendable, Hashable {
        public var microBatchTokens: Int
        public var gradClip: Double
        public var temperature: Double
        public var sharesPrefixes: Bool
        public var logitsChunk: Int
        public init(
            microBatchTokens: Int = 4096, gradClip: Double = 1, temperature: Double = 1, sharesPrefixes: Bool = true,
            logitsChunk: Int = 256
        ) {
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

    public init(
        model: any CausalLanguageModel, optimizer: AdamW, schedule: LearningRateSchedule,
        settings: Settings = Settings()
    ) {
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

    /// Log-probabilities and entropies of every answer token under the weights as they are, without gradients.
    public func score(_ sequences: [TrainingSequence]) throws -> (logProbs: [[Float]], entropies: [[Float]]) {
        var logProbs = [[Float]](repeating: [], count: sequences.count), entropies = logProbs
        let micros = MicroBatches.split(
            sequences, indices: Array(sequences.indices), tokenBudget: settings.microBatchTokens,
            sharesPrefixes: settings.sharesPrefixes)
        try withNoGrad {
            for micro in micros {
                let batch = micro.map { sequences[$0] }
                let outputs = try forward(batch)
                let padding = Padding(lengths: batch.map(\.response.count))
                for (index, values) in zip(micro, try padding.rows(outputs.logProbs)) { logProbs[index] = values }
                for (index, values) in zip(micro, try padding.rows(outputs.entropies)) { entropies[index] = values }
            }
        }
        return (logProbs, entropies)
    }

    /// One optimizer step on a mini-batch, whatever the number of micro-batches it takes.
    public func update(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PolicyStepReport {
        let gradients = try accumulate(samples, loss: loss)
        let rate = schedule.rate(step: optimizer.stepCount)
        let (norm, stepped) = try optimizer.step(learningRate: rate, maxNorm: settings.gradClip)
        return PolicyStepReport(
            metrics: gradients.metrics, gradNorm: norm, learningRate: rate, stepped: stepped,
            microBatches: gradients.microBatches, computedTokens: gradients.computedTokens)
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    func accumulate(
        _ samples: [PolicySample], loss: PolicyLossFunction
    ) throws -> (metrics: [(name: String, value: Double)], microBatches: Int, computedTokens: Int) {
        let sequences = samples.map(\.sequence)
        let totals = BatchTotals(
            sequences: samples.count, tokens: sequences.reduce(0) { $0 + $1.response.count },
            width: sequences.map(\.response.count).max() ?? 0)
        let micros = MicroBatches.split(
            sequences, indices: Array(samples.indices), tokenBudget: settings.microBatchTokens,
            sharesPrefixes: settings.sharesPrefixes)
        var metrics: [(name: String, value: Double)] = [], computed = 0
        for micro in micros {
            let batch = micro.map { samples[$0] }
            let padding = Padding(lengths: batch.map(\.sequence.response.count))
            let device = model.device
            let output = try withGrad {
                let outputs = try forward(batch.map(\.sequence))
                let refs = batch.compactMap(\.refLogProbs)
                let output = try loss(
                    PolicyLossInputs(
                        logProbs: outputs.logProbs, entropies: outputs.entropies,
                        oldLogProbs: padding.pad(batch.map(\.oldLogProbs), device: device),
                        advantages: padding.pad(batch.map(\.advantages), device: device),
                        responseMask: outputs.responseMask,
                        refLogProbs: refs.count == batch.count ? padding.pad(refs, device: device) : nil,
                        rolloutLogProbs: padding.pad(batch.map(\.rolloutLogProbs), device: device), totals: totals))
                try output.loss.backward()
                return output
            }
            try optimizer.gatherGrads()
            computed += Pack(batch.map(\.sequence), sharesPrefixes: settings.sharesPrefixes).tokenCount
            for (name, value) in output.metrics {
                let number = try value.item()
                if let index = metrics.firstIndex(where: { $0.name == name }) {
                    metrics[index].value += number
                } else {
                    metrics.append((name, number))
                }
            }
        }
        return (metrics, micros.count, computed)
    }
}
