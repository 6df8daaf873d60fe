public import Models
public import TensorCore

/// A number to report of a loss, and how micro-batches' shares of it come together.
public struct LossMetric {
    public enum Reduction: Sendable {
        case sum, max
        /// The value is a sum over answer tokens; reported is the mean over those that took part.
        case tokenMean
    }
    public var name: String
    public var value: Tensor
    public var reduction: Reduction

    public init(_ name: String, _ value: Tensor, _ reduction: Reduction = .sum) {
        self.name = name
        self.value = value
        self.reduction = reduction
    }
}

/// A micro-batch's share of a loss and what to report of it. Shares add up: normalisers count the whole batch.
public struct LossOutput {
    public var loss: Tensor
    public var metrics: [LossMetric]

    public init(loss: Tensor, metrics: [LossMetric]) {
        self.loss = loss
        self.metrics = metrics
    }
}

/// Metrics of a batch, gathered from its micro-batches in order.
public struct MetricSums: Sendable {
    public private(set) var values: [(name: String, value: Double)] = []

    public init() {}

    /// - Parameter lossTokens: what divides `tokenMean`: the tokens of the whole batch that take part in the loss.
    public mutating func add(_ metrics: [LossMetric], lossTokens: Int) throws(TorchError) {
        for metric in metrics {
            let share = metric.reduction == .tokenMean ? 1 / Double(max(1, lossTokens)) : 1
            add(metric.name, try metric.value.item() * share, metric.reduction)
        }
    }

    private mutating func add(_ name: String, _ value: Double, _ reduction: LossMetric.Reduction) {
        guard let index = values.firstIndex(where: { $0.name == name }) else {
            values.append((name, value))
            return
        }
        switch reduction {
        case .sum, .tokenMean: values[index].value += value
        case .max: values[index].value = max(values[index].value, value)
        }
    }
}

/// The one place where an optimizer step comes about, whatever is learnt: forward and backward over micro-batches, gradients
/// summed, then clipped and stepped. It knows neither samples nor losses.
public struct GradientAccumulation {
    /// What a step did.
    public struct Step: Sendable {
        public var gradNorm, learningRate: Double
        /// False when the gradient was not finite and the step was left out.
        public var stepped: Bool
    }

    public let model: any SequenceModel
    public let optimizer: AdamW
    public let schedule: LearningRateSchedule
    /// The greatest norm of a gradient; 0: no clipping.
    public let gradClip: Double

    public init(model: any SequenceModel, optimizer: AdamW, schedule: LearningRateSchedule, gradClip: Double) {
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.gradClip = gradClip
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    ///
    /// - Parameters:
    ///   - lossTokens: of the whole batch, see ``MetricSums/add(_:lossTokens:)``.
    ///   - share: the forward pass and loss of one micro-batch, by its place; gradients are recorded around it.
    public func accumulate(
        microBatches: Int, lossTokens: Int, _ share: (Int) throws -> LossOutput
    ) throws -> MetricSums {
        // The sampler's copies of the weights may hold an adapter, or be older than the last step.
        model.unpackProjections()
        var sums = MetricSums()
        for index in 0..<microBatches {
            func run() throws -> LossOutput {
                try withGrad {
                    let output = try share(index)
                    try output.loss.backward()
                    return output
                }
            }
            let output = try model.adapter?.training(step: optimizer.stepCount, microBatch: index, run) ?? run()
            try optimizer.gatherGrads()
            try sums.add(output.metrics, lossTokens: lossTokens)
        }
        return sums
    }

    /// Clips the gathered gradients and steps at the schedule's rate.
    public func step() throws(TorchError) -> Step {
        let rate = schedule.rate(step: optimizer.stepCount)
        let (norm, stepped) = try optimizer.step(learningRate: rate, maxNorm: gradClip)
        return Step(gradNorm: norm, learningRate: rate, stepped: stepped)
    }
}
