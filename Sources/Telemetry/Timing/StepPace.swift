/// Guesses the time left from a moving average of the steps' times.
public struct StepPace: Hashable, Sendable {
    /// How much of the old average stays with each step: about the last seven steps count.
    private static let weight = 0.85
    private var average = 0.0
    private var remaining = 1.0

    public init() {}

    /// - Parameter seconds: what the step took; a value that is not finite or is negative is left out.
    public mutating func add(stepSeconds seconds: Double) {
        guard seconds.isFinite, seconds >= 0 else { return }
        average = Self.weight * average + (1 - Self.weight) * seconds
        remaining *= Self.weight
    }

    /// The average time of a step, in seconds; nil before the first.
    public var secondsPerStep: Double? { remaining < 1 ? average / (1 - remaining) : nil }

    /// The seconds that so many steps will take; nil before the first step.
    public func seconds(forSteps steps: Int) -> Double? { secondsPerStep.map { $0 * Double(steps) } }
}
