import Synchronization

/// Writes a TensorBoard event file, `events.out.tfevents.<seconds>.<host>.<pid>.<n>`, with one scalar per metric.
///
/// A resumed run starts a new file in the same folder, whose second record tells readers to drop what earlier files
/// hold from the resumed step on. Values are single precision there, by the format.
public final class TensorBoardFile: MetricsSink {
    public let path: String
    private let file: Mutex<PosixFile>
    private let now: @Sendable () -> Double

    /// Makes a new event file; the folder is made when absent.
    /// - Parameters:
    ///   - nextStep: the first step to come when a run is resumed; nil for a new run.
    ///   - now: the time in seconds since 1970.
    /// - Throws: `TelemetryError` with code `io`.
    public init(
        folder: String, resumingAt nextStep: Int? = nil,
        now: @escaping @Sendable () -> Double = SystemFacts.secondsSince1970
    ) throws(TelemetryError) {
        try Folder.create(folder)
        let time = now()
        let seconds = String(Int(time))
        // TensorBoard sorts by name: same width whatever the clock says.
        let padded = String(repeating: "0", count: max(0, 10 - seconds.utf8.count)) + seconds
        let base = "\(folder)/events.out.tfevents.\(padded).\(SystemFacts.hostName).\(SystemFacts.processIdentifier)"
        let file = try Self.create(base)
        var records = TFRecord.frame(TensorBoardEvent(wallTime: time, step: 0, content: .fileVersion).encoded())
        if let nextStep {
            records += TFRecord.frame(
                TensorBoardEvent(wallTime: time, step: nextStep, content: .sessionStart).encoded())
        }
        try file.write(records)
        path = file.path
        self.now = now
        self.file = Mutex(file)
    }

    public func write(_ metrics: StepMetrics) throws(TelemetryError) {
        let scalars = metrics.values.map { (tag: $0.key.text, value: Float($0.value)) }
        let event = TensorBoardEvent(wallTime: now(), step: metrics.step, content: .scalars(scalars))
        let record = TFRecord.frame(event.encoded())
        try file.withLock { file throws(TelemetryError) in try file.write(record) }
    }

    public func flush() throws(TelemetryError) {
        try file.withLock { file throws(TelemetryError) in try file.sync() }
    }

    /// Two files of one second and one process must not be one file.
    private static func create(_ base: String) throws(TelemetryError) -> PosixFile {
        var number = 0
        while true {
            do throws(TelemetryError) {
                return try PosixFile("\(base).\(number)", .create)
            } catch {
                if error.errorNumber != SystemFacts.alreadyExists { throw error }
                number += 1
            }
        }
    }
}
