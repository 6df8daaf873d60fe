public import TensorCore

/// Counts over the whole batch of an optimizer step, so that a loss does not depend on how it is split.
public struct SupervisedTotals: Sendable, Hashable {
    public var examples: Int
    /// Learnt tokens of the examples' first sequences: all of plain examples, the chosen answers' of pairs.
    public var tokens: Int

    public init(examples: Int, tokens: Int) {
        self.examples = examples
        self.tokens = tokens
    }

    public init(_ examples: [SupervisedExample]) {
        self.init(
            examples: examples.count, tokens: examples.reduce(0) { $0 + ($1.sequences.first?.learntTokens ?? 0) })
    }
}

/// What an objective sees of one micro-batch. Rows are the first sequences of all examples, then their second ones.
public struct SupervisedBatch {
    /// What the model gives, with gradient: log-probabilities of the response's tokens, float32 `[R, L]`, 0 where there is none; or
    /// scores, float32 `[R]`.
    public var values: Tensor
    /// float32 `[R, L]`, constants: of log-probabilities, entropies and 1 at tokens that are learnt.
    public var entropies, mask: Tensor?
    /// Sums of the reference's log-probabilities, float32 `[R]`.
    public var references: Tensor?
    /// float32 `[B]`.
    public var margins: Tensor?
    /// Examples of this micro-batch: B.
    public var count: Int
    public var totals: SupervisedTotals
}

/// What an objective reads of a model.
public enum SupervisedReading: Sendable, Hashable {
    /// A language model's log-probabilities of learnt tokens.
    case tokenLogProbs
    /// A scoring model's number for a whole sequence.
    case sequenceScores
}

/// Something to learn from examples. Adding one: a file with a conforming struct, and a line where a command makes its own.
public protocol SupervisedObjective: Sendable {
    var reading: SupervisedReading { get }
    /// Sequences of an example: 1, or 2 for pairs.
    var sequencesPerExample: Int { get }
    /// Whether the model as it was before training is to be compared with.
    var needsReference: Bool { get }
    /// The loss's gradient in every learnt token's log-probability, where it is the same whatever they are: logits are then computed
    /// once and not twice. nil: it is known only after the forward pass.
    func gradient(_ totals: SupervisedTotals) -> Double?
    /// The micro-batch's share of the loss, and metrics that add up to means over the whole batch.
    func callAsFunction(_ batch: SupervisedBatch) throws -> LossOutput
}

extension SupervisedObjective {
    public var reading: SupervisedReading { .tokenLogProbs }
    public var sequencesPerExample: Int { 2 }
    public var needsReference: Bool { false }
    public func gradient(_ totals: SupervisedTotals) -> Double? { nil }
}

extension SupervisedBatch {
    /// A mean over this micro-batch's examples as its share of the mean over the whole batch.
    func shares(_ means: [(name: String, value: Tensor)]) throws(TorchError) -> [LossMetric] {
        let share = Double(count) / Double(max(1, totals.examples))
        var metrics: [LossMetric] = []
        for (name, value) in means { metrics.append(LossMetric(name, try value.multiplied(by: share))) }
        return metrics
    }
}
