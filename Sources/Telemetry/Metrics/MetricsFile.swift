public import OrderedCollections
import Synchronization

/// Writes `metrics.jsonl`: one object a line, `{"step":N,"group/name":value,…}`, keys in the order of recording.
///
/// Doubles are in the shortest form that reads back to the same bits. A value that is not finite is written as the
/// string `"NaN"`, `"Infinity"` or `"-Infinity"` and counted. The file only grows, but for `truncate(afterStep:)`.
public final class MetricsFile: MetricsSink {
    private struct State: ~Copyable {
        var file: JSONLinesFile
        var notFinite = 0
    }

    public let path: String
    private let state: Mutex<State>

    /// Opens the file for appending; makes it when absent.
    /// - Throws: `TelemetryError` when it cannot be opened or an earlier line is damaged.
    public init(_ path: String, sync: SyncPolicy = .onFlush) throws(TelemetryError) {
        self.path = path
        state = Mutex(State(file: try JSONLinesFile(path, steps: .onceEach, sync: sync)))
    }

    /// - Throws: `TelemetryError`; the step must be after the last one in the file.
    public func write(_ metrics: StepMetrics) throws(TelemetryError) {
        let line = Self.line(metrics)
        try state.withLock { state throws(TelemetryError) in
            try state.file.append(line, step: metrics.step)
            state.notFinite += metrics.notFinite.count
        }
    }

    public func flush() throws(TelemetryError) {
        try state.withLock { state throws(TelemetryError) in try state.file.flush() }
    }

    /// Goes back to the state after a step: drops the lines of later steps and a torn last line, at once or not at all.
    public func truncate(afterStep step: Int) throws(TelemetryError) {
        try state.withLock { state throws(TelemetryError) in try state.file.truncate(afterStep: step) }
    }

    /// The last step in the file; nil when it holds none.
    public var lastStep: Int? { state.withLock { $0.file.lastStep } }

    /// How many values written by this object were not finite.
    public var notFiniteCount: Int { state.withLock { $0.notFinite } }

    static func line(_ metrics: StepMetrics) -> [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.key("step")
            $0.value(metrics.step)
            for (name, value) in metrics.values {
                $0.key(name.text)
                $0.value(value)
            }
        }
        return writer.bytes + [UInt8(ascii: "\n")]
    }
}

/// Reads `metrics.jsonl`. A last line that is still being written is left out.
public struct MetricsHistory: Hashable, Sendable {
    public let steps: [StepMetrics]

    public init(steps: [StepMetrics]) { self.steps = steps }

    /// - Throws: `TelemetryError` with the line at fault. An absent file is an empty history.
    public init(reading path: String) throws(TelemetryError) {
        var steps: [StepMetrics] = []
        for line in try JSONLines.read(path) {
            var metrics = StepMetrics(step: line.step)
            for (key, value) in line.value.object ?? [:] where key != "step" {
                guard let number = value.double, let name = try? MetricName(key) else {
                    throw TelemetryError(
                        .malformed, "step \(line.step): '\(key)' is not a metric with a number", path: path)
                }
                metrics[name] = number
            }
            steps.append(metrics)
        }
        self.steps = steps
    }

    /// Every metric's series, in the order in which the names first appear.
    public var series: OrderedDictionary<MetricName, MetricSeries> {
        var all: OrderedDictionary<MetricName, MetricSeries> = [:]
        for metrics in steps {
            for (name, value) in metrics.values { all[name, default: MetricSeries()].append(metrics.step, value) }
        }
        return all
    }

    public func series(_ name: MetricName) -> MetricSeries {
        var series = MetricSeries()
        for metrics in steps { if let value = metrics[name] { series.append(metrics.step, value) } }
        return series
    }

    /// The series of the score that the rewards gave, by whichever of the usual names the run recorded.
    public var score: MetricSeries {
        let score = series(.score)
        return score.values.isEmpty ? series(.reward) : score
    }

    /// What a run is judged by at a glance, with its name: the reward, or where there is none the loss.
    public var headline: (name: String, series: MetricSeries) {
        let score = score
        return score.values.isEmpty ? ("loss", series(.loss)) : ("reward", score)
    }

    /// The lines of a `metrics.jsonl` without what depends on the clock: equal for two runs of one seed.
    public static func reproducibleLines(of path: String) throws(TelemetryError) -> [String] {
        try MetricsHistory(reading: path).steps.map {
            String(decoding: MetricsFile.line($0.reproducible).dropLast(), as: UTF8.self)
        }
    }
}

/// One metric over the steps at which it was recorded.
public struct MetricSeries: Hashable, Sendable {
    public private(set) var steps: [Int] = []
    public private(set) var values: [Double] = []

    public init() {}

    public init(steps: [Int], values: [Double]) {
        precondition(steps.count == values.count, "\(steps.count) steps, \(values.count) values")
        self.steps = steps
        self.values = values
    }

    public mutating func append(_ step: Int, _ value: Double) {
        steps.append(step)
        values.append(value)
    }

    /// Exponential moving average with its bias corrected: the first value is itself. Values that are not finite are
    /// passed through and leave the average as it is.
    /// - Parameter weight: how much of the old average stays, from 0 (none) up to, not including, 1.
    public func smoothed(weight: Double) -> [Double] {
        var average = 0.0
        var remaining = 1.0
        return values.map { value in
            guard value.isFinite else { return value }
            average = weight * average + (1 - weight) * value
            remaining *= weight
            return average / (1 - remaining)
        }
    }
}
