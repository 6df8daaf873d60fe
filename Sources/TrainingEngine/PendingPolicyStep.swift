import TensorCore

/// An optimizer step that has been launched; its numbers are still on the device.
public final class PendingPolicyStep {
    let microBatches, lossTokens: Int
    var computedTokens = 0
    var learningRate = 0.0
    /// nil where there was nothing to learn from.
    var step: AdamW.PendingStep?
    private var metrics: [LossMetric] = []
    private let parallel: DataParallel?

    init(microBatches: Int, lossTokens: Int, parallel: DataParallel? = nil) {
        self.parallel = parallel
        self.microBatches = microBatches
        self.lossTokens = lossTokens
    }

    /// Keeps a micro-batch's metrics without reading them.
    func add(_ more: [LossMetric]) throws(TorchError) {
        for metric in more {
            metrics.append(LossMetric(metric.name, try metric.value.detached(), metric.reduction))
        }
    }

    /// What the step did; waits for the device, and for other ranks, whose micro-batches count too.
    public func report() throws -> PolicyStepReport {
        let (gradNorm, stepped) = try step?.result() ?? (0, false)
        var sums = MetricSums()
        for (metric, value) in zip(metrics, try values()) {
            let share = metric.reduction == .tokenMean ? 1 / Double(max(1, lossTokens)) : 1
            sums.add(metric.name, value * share, isMaximum: metric.reduction == .max)
        }
        var computed = computedTokens
        if let parallel {
            sums = try parallel.whole(sums)
            computed = try parallel.sum(computed)
        }
        return PolicyStepReport(
            metrics: sums.values, gradNorm: gradNorm, learningRate: learningRate, stepped: stepped,
            microBatches: microBatches, computedTokens: computed, lossTokens: lossTokens)
    }

    /// The metrics' numbers, those of the device in one copy.
    private func values() throws(TorchError) -> [Double] {
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
