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

    /// The batch's numbers; waits for the device.
    /// - Parameter lossTokens: what divides `tokenMean`: the tokens of the whole batch that take part in the loss.
    public func values(lossTokens: Int) throws(TorchError) -> [(name: String, value: Double)] {
        var sums: [(name: String, value: Double)] = []
        for (metric, number) in zip(metrics, try numbers()) {
            let value = metric.reduction == .tokenMean ? number / Double(max(1, lossTokens)) : number
            guard let index = sums.firstIndex(where: { $0.name == metric.name }) else {
                sums.append((metric.name, value))
                continue
            }
            switch metric.reduction {
            case .sum, .tokenMean: sums[index].value += value
            case .max: sums[index].value = max(sums[index].value, value)
            }
        }
        return sums
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
/// summed, then clipped and stepped. It knows neither samples nor losses.
public struct GradientAccumulation {
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
    /// - Parameter share: the forward pass and loss of one micro-batch, by its place; gradients are recorded around it.
    public func accumulate(microBatches: Int, _ share: (Int) throws -> LossOutput) throws -> PendingMetrics {
        // The sampler's copies of the weights may hold an adapter, or be older than the last step.
        model.unpackProjections()
        var metrics = PendingMetrics()
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
            try metrics.add(output.metrics)
        }
        return metrics
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
