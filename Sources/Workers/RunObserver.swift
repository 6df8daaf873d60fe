public import Collectives
public import Flow
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
    private let progress: RankProgress?

    /// - Parameter progress: where the other ranks see how far this one is.
    public init(
        folder: RunFolder, recorder: RunRecorder, view: LiveView?, summary: RunSummary, progress: RankProgress? = nil
    ) {
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
        guard let rate = metrics["val/exact_match"] else { return }
        try view?.printLine("held-out exact match \(name): \(percent(rate))")
        try update { summary in
            var match = summary.heldOutExactMatch ?? .init()
            if name == "before" { match.before = rate } else { match.after = rate }
            summary.heldOutExactMatch = match
        }
    }

    public func willSave(_ state: LoopState) throws { try recorder.flush() }

    public func finish(_ change: (inout RunSummary) -> Void) throws {
        try recorder.flush()
        try view?.finish()
        try update(change)
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
