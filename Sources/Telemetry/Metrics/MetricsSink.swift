/// A place where the metrics of each step go.
public protocol MetricsSink: Sendable {
    /// Takes the metrics of one step. When it returns, a killed process loses nothing of them.
    func write(_ metrics: StepMetrics) throws(TelemetryError)

    /// Makes what was written survive a power cut too.
    func flush() throws(TelemetryError)
}

/// Hands each step's metrics to every sink.
public struct MetricsRecorder: MetricsSink {
    public let sinks: [any MetricsSink]

    public init(_ sinks: [any MetricsSink]) { self.sinks = sinks }

    /// Writes to every sink, also after one has failed.
    /// - Throws: the first failure, naming how many sinks failed when more than one did.
    public func write(_ metrics: StepMetrics) throws(TelemetryError) {
        try forEach { sink throws(TelemetryError) in try sink.write(metrics) }
    }

    public func flush() throws(TelemetryError) {
        try forEach { sink throws(TelemetryError) in try sink.flush() }
    }

    private func forEach(_ body: (any MetricsSink) throws(TelemetryError) -> Void) throws(TelemetryError) {
        var failures: [TelemetryError] = []
        for sink in sinks {
            do throws(TelemetryError) { try body(sink) } catch { failures.append(error) }
        }
        guard let first = failures.first else { return }
        if failures.count == 1 { throw first }
        let others = failures.dropFirst().map(\.description).joined(separator: "; ")
        throw TelemetryError(
            first.code, "\(first.message) (and \(failures.count - 1) more: \(others))", path: first.path,
            errorNumber: first.errorNumber)
    }
}
