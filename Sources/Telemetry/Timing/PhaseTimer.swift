public import OrderedCollections
import Synchronization

/// Measures the phases of one training step after another on a monotonic clock.
///
/// A phase that runs more than once in a step is summed. Phases that overlap count in full each, so that their shares
/// may sum to more than one.
public final class PhaseTimer: Sendable {
    private struct State {
        var stepStart: Duration
        var phases: OrderedDictionary<Phase, Duration> = [:]
    }

    private let now: @Sendable () -> Duration
    private let state: Mutex<State>

    /// Starts the first step.
    public init<C: Clock>(clock: C = ContinuousClock()) where C.Duration == Duration {
        let now = clock.elapsed
        self.now = now
        state = Mutex(State(stepStart: now()))
    }

    /// Runs a phase and adds the time it took, also when it throws.
    public func measure<Result, Failure: Error>(
        _ phase: Phase, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let start = now()
        defer { add(phase, now() - start) }
        return try body()
    }

    /// Runs a phase and adds the time it took, its suspensions included, also when it throws.
    public func measure<Result, Failure: Error>(
        _ phase: Phase, isolation: isolated (any Actor)? = #isolation,
        _ body: () async throws(Failure) -> Result
    ) async throws(Failure) -> Result {
        let start = now()
        defer { add(phase, now() - start) }
        return try await body()
    }

    /// Adds time that was measured elsewhere, on another rank for one.
    public func add(_ phase: Phase, _ duration: Duration) {
        state.withLock { $0.phases[phase, default: .zero] += duration }
    }

    /// Ends the step: gives its times, and starts the next.
    public func finishStep() -> PhaseTimes {
        let end = now()
        return state.withLock { state in
            defer { state = State(stepStart: end) }
            return PhaseTimes(step: end - state.stepStart, phases: state.phases)
        }
    }
}

/// The times of one step.
public struct PhaseTimes: Hashable, Sendable {
    /// The whole step.
    public let step: Duration
    /// In the order in which the phases first ran.
    public let phases: OrderedDictionary<Phase, Duration>

    public init(step: Duration, phases: OrderedDictionary<Phase, Duration>) {
        self.step = step
        self.phases = phases
    }

    /// Each phase's share of the step, and, when the phases leave some of it, that rest as `other`.
    public var shares: OrderedDictionary<Phase, Double> {
        guard step > .zero else { return [:] }
        var shares = phases.mapValues { $0 / step }
        let rest = 1 - shares.values.reduce(0, +)
        if rest > 0 { shares[.other, default: 0] += rest }
        return shares
    }

    /// `time/step_s` and `time/<phase>_s` in seconds, `perf/share/<phase>` as parts of one.
    public var metrics: OrderedDictionary<MetricName, Double> {
        var metrics: OrderedDictionary<MetricName, Double> = [.stepSeconds: step / .seconds(1)]
        for (phase, time) in phases { metrics[.seconds(of: phase)] = time / .seconds(1) }
        for (phase, share) in shares { metrics[.share(of: phase)] = share }
        return metrics
    }
}

extension MetricName {
    public static func seconds(of phase: Phase) -> MetricName { MetricName(stringLiteral: "time/\(phase.name)_s") }
    public static func share(of phase: Phase) -> MetricName { MetricName(stringLiteral: sharePrefix + phase.name) }

    static let sharePrefix = "perf/share/"

    /// The phase whose share of the step this metric is.
    var phaseOfShare: Phase? {
        text.hasPrefix(Self.sharePrefix) ? try? Phase(String(text.dropFirst(Self.sharePrefix.count))) : nil
    }
}

extension Clock where Duration == Swift.Duration {
    /// A function that gives the time since now.
    var elapsed: @Sendable () -> Swift.Duration {
        let origin = now
        return { origin.duration(to: now) }
    }
}
