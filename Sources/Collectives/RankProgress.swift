import Synchronization
public import TensorCore

/// Where a run is, as this rank knows it and shows it to the others.
public final class RankProgress: Sendable {
    public struct Place: Sendable, Hashable, Codable {
        /// From 1; less: before the first.
        public var step: Int
        public var phase: String

        public init(step: Int = 0, phase: String = "start") {
            self.step = step
            self.phase = phase
        }
    }

    public let watch: RankWatch
    private let place = Mutex(Place())
    public let rehearsal: FailureRehearsal?

    /// - Parameter rehearsal: a failure to act out.
    public init(_ watch: RankWatch, rehearsal: FailureRehearsal? = nil) {
        self.watch = watch
        self.rehearsal = rehearsal
    }

    public var current: Place { place.withLock { $0 } }

    public func enter(_ place: Place) {
        self.place.withLock { $0 = place }
        watch.enter(step: place.step > 0 ? place.step : -1, phase: place.phase)
        rehearsal?.act(rank: watch.rank, at: place)
    }

    /// Says what of the phase is being done: a layer, a micro-batch.
    public func enter(unit: String) {
        let place = current
        watch.enter(step: place.step > 0 ? place.step : -1, phase: place.phase, unit: unit)
    }
}
