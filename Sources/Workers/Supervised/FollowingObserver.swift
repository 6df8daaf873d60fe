import Collectives
import Flow
import Synchronization
import Telemetry

/// The observer of a rank that leaves the run's folder to the first one: tells the others where it is.
final class FollowingObserver: LoopObserver {
    private let progress: (any PhaseListener)?
    private let steps: Mutex<Int>

    /// - Parameter steps: that are done.
    init(_ progress: (any PhaseListener)?, steps: Int) {
        self.progress = progress
        self.steps = Mutex(steps)
    }

    /// The first rank is asked.
    var wantsToStop: Bool { false }

    func phaseBegins(_ phase: Phase) throws {
        let done = steps.withLock { $0 }
        progress?.enter(.init(step: phase == .save || phase == .evaluate ? done : done + 1, phase: phase.name))
    }

    func stepEnded(_ metrics: StepMetrics, samples: [Sample]) throws { steps.withLock { $0 = metrics.step } }
    func evaluated(_ name: String, _ metrics: PhaseMetrics) throws {}
    func willSave(_ state: LoopState) throws {}
}
