#if canImport(Glibc)
    import Glibc
#endif

/// The learning rate as a function of the optimizer step.
public struct LearningRateSchedule: Sendable, Hashable {
    public enum Decay: String, Sendable, Hashable { case constant, linear, cosine }

    public var peak: Double
    public var warmupSteps: Int
    public var decay: Decay
    /// Steps at which a decay reaches its floor.
    public var totalSteps: Int
    /// The floor, as a share of the peak.
    public var minRatio: Double

    public init(
        peak: Double, warmupSteps: Int = 0, decay: Decay = .constant, totalSteps: Int = 0, minRatio: Double = 0
    ) {
        self.peak = peak
        self.warmupSteps = warmupSteps
        self.decay = decay
        self.totalSteps = totalSteps
        self.minRatio = minRatio
    }

    /// The rate of step `step`, counted from 0. Warm-up is linear and its first step already moves: (step + 1) / warmupSteps.
    public func rate(step: Int) -> Double {
        if step < warmupSteps { return peak * Double(step + 1) / Double(warmupSteps) }
        let span = max(1, totalSteps - warmupSteps)
        let progress = min(1, Double(step - warmupSteps) / Double(span))
        switch decay {
        case .constant: return peak
        case .linear: return peak * max(minRatio, 1 - progress * (1 - minRatio))
        case .cosine: return peak * (minRatio + (1 - minRatio) * 0.5 * (1 + cos(.pi * progress)))
        }
    }
}
