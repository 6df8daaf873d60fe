/// Writes everything that a run records step by step into its folder: metrics, samples, TensorBoard events.
public struct RunRecorder: MetricsSink {
    public let metrics: MetricsFile
    public let samples: SampleFile
    /// Nil where no event file is wanted.
    public let tensorBoard: TensorBoardFile?

    /// Opens the files of a run, making the folder when absent.
    /// - Parameters:
    ///   - resumedStep: the step of the checkpoint that a resumed run goes on from; what the files hold of later steps
    ///     is dropped (-1 drops all). Nil for a new run.
    ///   - now: the time in seconds since 1970.
    /// - Throws: `TelemetryError`: `outOfOrder` when a new run's folder holds another's metrics.
    public init(
        _ folder: RunFolder, resumingAfter resumedStep: Int?, sync: SyncPolicy = .onFlush,
        writesTensorBoard: Bool = true,
        now: @escaping @Sendable () -> Double = SystemFacts.secondsSince1970
    ) throws(TelemetryError) {
        try folder.create()
        metrics = try MetricsFile(folder.metrics, sync: sync)
        samples = try SampleFile(folder.samples, sync: sync)
        if let resumedStep {
            try metrics.truncate(afterStep: resumedStep)
            try samples.truncate(afterStep: resumedStep)
        } else if let step = metrics.lastStep ?? samples.lastStep {
            throw TelemetryError(
                .outOfOrder, "a run has got to step \(step) here; resume it, or give the new run another folder",
                path: folder.path)
        }
        tensorBoard =
            writesTensorBoard
            ? try TensorBoardFile(folder: folder.tensorBoard, resumingAt: resumedStep.map { $0 + 1 }, now: now) : nil
    }

    /// Records a step: the samples first, so that a step whose metrics are there is there whole.
    /// - Throws: `TelemetryError`.
    public func write(_ metrics: StepMetrics, samples rows: [Sample]) throws(TelemetryError) {
        try samples.write(StepSamples(step: metrics.step, samples: rows))
        try write(metrics)
    }

    public func write(_ metrics: StepMetrics) throws(TelemetryError) {
        try sinks.write(metrics)
    }

    /// Puts all that was written on the disk. Call it before a checkpoint, so that no checkpoint is ahead of its metrics.
    public func flush() throws(TelemetryError) {
        try samples.flush()
        try sinks.flush()
    }

    private var sinks: MetricsRecorder { MetricsRecorder([metrics] + (tensorBoard.map { [$0] } ?? [])) }
}
