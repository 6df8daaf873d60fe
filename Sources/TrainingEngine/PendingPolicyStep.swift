import TensorCore

/// An optimizer step that has been launched; its numbers are still on the device.
public final class PendingPolicyStep {
    let microBatches, lossTokens: Int
    var computedTokens = 0
    var learningRate = 0.0
    /// nil where there was nothing to learn from.
    var step: AdamW.PendingStep?
    var metrics = PendingMetrics()
    private let parallel: DataParallel?

    init(microBatches: Int, lossTokens: Int, parallel: DataParallel? = nil) {
        self.parallel = parallel
        self.microBatches = microBatches
        self.lossTokens = lossTokens
    }

    /// What the step did; waits for the device, and for other ranks, whose micro-batches count too.
    public func report() throws -> PolicyStepReport {
        let (gradNorm, stepped) = try step?.result() ?? (0, false)
        let sums = try metrics.sums(lossTokens: lossTokens, over: parallel)
        return PolicyStepReport(
            metrics: sums.values, gradNorm: gradNorm, learningRate: learningRate, stepped: stepped,
            microBatches: microBatches, computedTokens: try parallel?.sum(computedTokens) ?? computedTokens,
            lossTokens: lossTokens)
    }
}
