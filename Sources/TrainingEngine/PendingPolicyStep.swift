import TensorCore

/// An optimizer step that has been launched; its numbers are still on the device.
public final class PendingPolicyStep {
    let microBatches, lossTokens: Int
    var computedTokens = 0
    var learningRate = 0.0
    /// nil where there was nothing to learn from.
    var step: AdamW.PendingStep?
    var metrics = PendingMetrics()

    init(microBatches: Int, lossTokens: Int) {
        self.microBatches = microBatches
        self.lossTokens = lossTokens
    }

    /// What the step did; waits for the device.
    public func report() throws -> PolicyStepReport {
        let (gradNorm, stepped) = try step?.result() ?? (0, false)
        return PolicyStepReport(
            metrics: try metrics.values(lossTokens: lossTokens), gradNorm: gradNorm, learningRate: learningRate,
            stepped: stepped, microBatches: microBatches, computedTokens: computedTokens, lossTokens: lossTokens)
    }
}
