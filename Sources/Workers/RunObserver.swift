public import Collectives
public import Flow
import Logging
public import OrderedCollections
import Synchronization
public import Telemetry

/// Records what the loop reports into the run's folder, draws it, and carries a request to stop.
public final class RunObserver: LoopObserver {
    private let recorder: RunRecorder
    private let view: LiveView?
    private let totalSteps: Int
    private let stop = Mutex(false)
    private let summary: Mutex<RunSummary>
    private let folder: RunFolder
    private let measures: [MetricName]
    private let progress: (any PhaseListener)?

    /// - Parameters:
    ///   - measures: of held-out rows, which the summary tells before and after; where there is none, the rate of exact matches
    ///     is told.
    ///   - progress: is told where the run is.
    init(
        folder: RunFolder, recorder: RunRecorder, view: LiveView?, summary: RunSummary, measures: [MetricName] = [],
        progress: (any PhaseListener)? = nil
    ) {
        self.measures = measures
        self.progress = progress
        self.folder = folder
        self.recorder = recorder
        self.view = view
        totalSteps = summary.totalSteps
        self.summary = Mutex(summary)
    }

    /// Asks the loop to end after the step at hand.
    public func requestStop() { stop.withLock { $0 = true } }
    public var wantsToStop: Bool { stop.withLock { $0 } }

    public func phaseBegins(_ phase: Phase) throws {
        let done = summary.withLock { $0.steps }
        // A save belongs to the step before it; the first evaluation to none.
        let step = phase == .save || phase == .evaluate ? done : done + 1
        progress?.enter(.init(step: step, phase: phase.name))
        try view?.show(phase)
    }

    public func stepEnded(_ metrics: StepMetrics, samples: [Sample]) throws {
        try recorder.write(metrics, samples: samples)
        try view?.show(StepView(metrics, totalSteps: totalSteps))
        try update { $0.steps = metrics.step }
    }

    public func evaluated(_ name: String, _ metrics: PhaseMetrics) throws {
        if !measures.isEmpty { return try measured(name, metrics) }
        guard let rate = metrics["val/exact_match"] else { return }
        try view?.printLine("held-out exact match \(name): \(percent(rate))")
        try update { summary in
            var match = summary.heldOutExactMatch ?? .init()
            if name == "before" { match.before = rate } else { match.after = rate }
            summary.heldOutExactMatch = match
        }
    }

    private func measured(_ name: String, _ metrics: PhaseMetrics) throws {
        let found = measures.compactMap { measure in metrics[measure].map { (measure, $0) } }
        let text = found.map { "\($0.0.text.dropFirst("val/".count)) \(($0.1 * 1e4).rounded() / 1e4)" }
        try view?.printLine("held-out \(name): \(text.joined(separator: ", "))")
        try update { summary in
            for (measure, value) in found {
                var pair = summary.heldOut[measure] ?? .init()
                if name == "before" { pair.before = value } else { pair.after = value }
                summary.heldOut[measure] = pair
            }
        }
    }

    public func willSave(_ state: LoopState) throws { try recorder.flush() }

    public func finish(_ change: (inout RunSummary) -> Void) throws {
        try recorder.flush()
        try view?.finish()
        try update(change)
    }

    /// Notes in the summary why the run failed. That error is the one to tell; a folder that cannot be written either must not
    /// hide it.
    func failed(_ failure: any Error, _ log: Logger) {
        do {
            try finish { summary in
                summary.status = .failed
                summary.failure = "\(failure)"
            }
        } catch {
            log.error("the run's summary could not be written: \(error)")
        }
    }

    private func update(_ change: (inout RunSummary) -> Void) throws {
        let summary = summary.withLock { summary in
            change(&summary)
            return summary
        }
        try folder.write(summary)
    }

    private func percent(_ rate: Double) -> String {
        "\((rate * 1000).rounded() / 10) %"
    }
}
