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
    /// The ranks that share batches and parameters out among them.
    public let parallel: DataParallel?

    public init(
        model: any SequenceModel, optimizer: AdamW, schedule: LearningRateSchedule, gradClip: Double,
        parallel: DataParallel? = nil
    ) {
        self.parallel = parallel
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.gradClip = gradClip
    }

    /// Forward and backward over all micro-batches, leaving the gradient sums with the optimizer.
    ///
    /// - Parameters:
    ///   - microBatches: this rank's; where others have more, it takes part in theirs without adding to them.
    ///   - lossTokens: of the whole batch, see ``MetricSums/add(_:lossTokens:)``.
    ///   - share: the forward pass and loss of one micro-batch, by its place; gradients are recorded around it.
    /// - Returns: the metrics of the whole batch.
    public func accumulate(
        microBatches: Int, lossTokens: Int, _ share: (Int) throws -> LossOutput
    ) throws -> MetricSums {
        // The sampler's copies of the weights may hold an adapter, or be older than the last step.
        model.unpackProjections()
        let passes = try parallel?.greatest(microBatches) ?? microBatches
        var sums = MetricSums()
        try parallel?.parameters.begin()
        for index in 0..<passes {
            func run() throws -> LossOutput {
                try withGrad {
                    guard let parallel else {
                        let output = try share(index)
                        try output.loss.backward()
                        return output
                    }
                    let output =
                        try index < microBatches ? share(index) : LossOutput(loss: parallel.idle(), metrics: [])
                    try parallel.parameters.backward(output.loss, isLast: index + 1 == passes)
                    return output
                }
            }
            // Each rank's own dropout.
            let number = index * (parallel?.count ?? 1) + (parallel?.rank ?? 0)
            let output = try adapter?.training(step: optimizer.stepCount, microBatch: number, run) ?? run()
            if parallel == nil { try optimizer.gatherGrads() }
            try sums.add(output.metrics, lossTokens: lossTokens)
        }
        try parallel?.parameters.end()
        return try parallel?.whole(sums) ?? sums
    }

    private var adapter: LoRA? { (model as? any CausalLanguageModel)?.adapter }

    /// Clips the gathered gradients and steps at the schedule's rate.
    public func step() throws(TorchError) -> Step {
        let rate = schedule.rate(step: optimizer.stepCount)
        let (norm, stepped) = try optimizer.step(learningRate: rate, maxNorm: gradClip)
        return Step(gradNorm: norm, learningRate: rate, stepped: stepped)
    }
}
