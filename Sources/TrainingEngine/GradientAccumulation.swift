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
    /// Where backward begins whose first part is done already, by the forward pass itself; nil: at the loss.
    public var start: BackwardStart?

    public init(loss: Tensor, metrics: [LossMetric], start: BackwardStart? = nil) {
        self.loss = loss
        self.metrics = metrics
        self.start = start
    }
}

/// A tensor and the loss's gradient in it.
public struct BackwardStart {
    public let tensor, gradient: Tensor

    public init(_ tensor: Tensor, gradient: Tensor) {
        self.tensor = tensor
        self.gradient = gradient
    }
}

/// Metrics of a batch's micro-batches, whose numbers may be on the device still.
public struct PendingMetrics {
    private var metrics: [LossMetric] = []

    public init() {}

    /// Keeps a micro-batch's metrics without reading them.
    public mutating func add(_ more: [LossMetric]) throws(TorchError) {
        for metric in more {
            metrics.append(LossMetric(metric.name, try metric.value.detached(), metric.reduction))
        }
    }

    /// The batch's numbers; waits for the device, and for the ranks whose micro-batches count too.
    /// - Parameter lossTokens: what divides `tokenMean`: the tokens of the whole batch that take part in the loss.
    public func sums(lossTokens: Int, over parallel: DataParallel? = nil) throws -> MetricSums {
        var sums = MetricSums()
        for (metric, value) in zip(metrics, try numbers()) {
            let share = metric.reduction == .tokenMean ? 1 / Double(max(1, lossTokens)) : 1
            sums.add(metric.name, value * share, isMaximum: metric.reduction == .max)
        }
        return try parallel?.whole(sums) ?? sums
    }

    /// The metrics' numbers, those of the device in one copy.
    private func numbers() throws(TorchError) -> [Double] {
        var values = [Double](repeating: 0, count: metrics.count), remote: [Int] = [], tensors: [Tensor] = []
        for (index, metric) in metrics.enumerated() {
            if metric.value.device.isCUDA {
                remote.append(index)
                tensors.append(try metric.value.to(dtype: .float64).reshaped([1]))
            } else {
                values[index] = try metric.value.item()
            }
        }
        if !tensors.isEmpty {
            for (index, value) in zip(remote, try Tensor.concatenate(tensors).values(Double.self)) {
                values[index] = value
            }
        }
        return values
    }
}

/// The one place where an optimizer step comes about, whatever is learnt: forward and backward over micro-batches, gradients
/// summed, then clipped and stepped. It knows neither samples nor losses, and nothing in it waits for the device.
public struct GradientAccumulation {
    public let model: any SequenceModel
    public let optimizer: AdamW
    public let schedule: LearningRateSchedule
    /// The greatest norm of a gradient; 0: no clipping.
    public let gradClip: Double
    /// The ranks that share batches and parameters out among them; they make the same calls.
    public let parallel: DataParallel?

    public init(
        model: any SequenceModel, optimizer: AdamW, schedule: LearningRateSchedule, gradClip: Double,
        parallel: DataParallel? = nil
    ) {
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.gradClip = gradClip
        self.parallel = parallel
    }

    /// Forward and backward over this rank's micro-batches, leaving the gradient sums with the optimizer.
    ///
    /// - Parameter share: the forward pass and loss of one micro-batch; gradients are recorded around it.
    public func accumulate<Micro>(
        _ micros: [Micro], _ share: (Micro) throws -> LossOutput
    ) throws -> PendingMetrics {
        // The sampler's copies of the weights may hold an adapter, or be older than the last step.
        model.unpackProjections()
        var metrics = PendingMetrics()
        var number = parallel?.rank ?? 0
        func pass(_ micro: Micro?, isLast: Bool) throws {
            let output = try StatePrefetch.around(model, optimizer, isLast: isLast) {
                let output = try withGrad { try micro.map(share) ?? idle() }
                try backward(output, isLast: isLast)
                return output
            }
            try metrics.add(output.metrics)
        }
        /// Each rank and micro-batch has dropout of its own.
        func next(_ micro: Micro?, isLast: Bool) throws {
            func body() throws { try pass(micro, isLast: isLast) }
            try model.adapter?.training(step: optimizer.nextStep, microBatch: number, body) ?? body()
            number += parallel?.count ?? 1
        }
        if let parallel {
            try parallel.forEach(micros) { try next($0, isLast: $1) }
        } else {
            for (index, micro) in micros.enumerated() { try next(micro, isLast: index + 1 == micros.count) }
        }
        return metrics
    }

    /// Where other ranks have more micro-batches than this one.
    private func idle() throws -> LossOutput {
        guard let parallel else { preconditionFailure("one process has no idle passes") }
        return LossOutput(loss: try parallel.idle(), metrics: [])
    }

    private func backward(_ output: LossOutput, isLast: Bool) throws {
        let root = output.start?.tensor ?? output.loss, gradient = output.start?.gradient
        if let parallel { return try parallel.parameters.backward(root, gradient, isLast: isLast) }
        try root.backward(gradient)
        try optimizer.gatherGrads()
    }

    /// The schedule's rate of the next step. The last step's outcome, which the device has told by now, is part of its number.
    public func learningRate() throws(TorchError) -> Double {
        try optimizer.settle()
        return schedule.rate(step: optimizer.stepCount)
    }

    /// Clips the gathered gradients and steps, without waiting for the device.
    public func step(learningRate: Double) throws(TorchError) -> AdamW.PendingStep {
        try optimizer.beginStep(learningRate: learningRate, maxNorm: gradClip)
    }
}
