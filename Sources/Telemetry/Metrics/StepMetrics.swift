public import OrderedCollections

/// The metrics of one training step, in the order in which they were recorded.
public struct StepMetrics: Hashable, Sendable {
    public var step: Int
    public private(set) var values: OrderedDictionary<MetricName, Double>

    public init(step: Int, values: OrderedDictionary<MetricName, Double> = [:]) {
        self.step = step
        self.values = values
    }

    /// Reads, sets (a new name goes last) or, with nil, removes a metric.
    public subscript(name: MetricName) -> Double? {
        get { values[name] }
        set { values[name] = newValue }
    }

    /// Adds a metric that this step does not have yet.
    /// - Throws: `TelemetryError` with code `duplicateMetric`.
    public mutating func record(_ name: MetricName, _ value: Double) throws(TelemetryError) {
        if let old = values.updateValue(value, forKey: name) {
            throw TelemetryError(
                .duplicateMetric,
                "step \(step): metric '\(name)' is recorded twice (\(old), then \(value)); give one of them another name"
            )
        }
    }

    /// Adds every metric of another record of the same step.
    /// - Throws: `TelemetryError` with code `duplicateMetric`.
    public mutating func record(_ others: OrderedDictionary<MetricName, Double>) throws(TelemetryError) {
        for (name, value) in others { try record(name, value) }
    }

    /// Adds `name/mean`, `name/min` and `name/max` of the values; adds nothing when there are none.
    /// The sum runs in order, so equal values in equal order give an equal mean.
    /// - Throws: `TelemetryError` with code `duplicateMetric` or `invalidName`.
    public mutating func record(_ name: String, summaryOf values: some Sequence<Double>) throws(TelemetryError) {
        var count = 0
        var sum = 0.0
        var least = Double.infinity
        var most = -Double.infinity
        for value in values {
            count += 1
            sum += value
            // A NaN among the values must show in all three, whatever its place.
            least = value.isNaN || least.isNaN ? .nan : Swift.min(least, value)
            most = value.isNaN || most.isNaN ? .nan : Swift.max(most, value)
        }
        if count == 0 { return }
        try record(MetricName(name + "/mean"), sum / Double(count))
        try record(MetricName(name + "/min"), least)
        try record(MetricName(name + "/max"), most)
    }

    /// The metrics that are not finite: the sign of a run that broke.
    public var notFinite: [MetricName] { values.filter { !$0.value.isFinite }.map(\.key) }

    /// This record without what depends on the clock: equal bit for bit in two runs of one seed.
    public var reproducible: StepMetrics {
        StepMetrics(step: step, values: values.filter { !$0.key.dependsOnClock })
    }
}
