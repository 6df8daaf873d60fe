import Collectives
import Config
import Flow
import OrderedCollections
import Synchronization
import Telemetry

/// The weights of samplers on another pool than the policy's: which they have, and how they get new ones.
final class Delivery: Sendable {
    private struct State {
        /// What the samplers have; nil before the first time, and since the policy changed.
        var installed: Int?
        /// Steps that are done, as the loop told.
        var step = 0
    }
    private let groups: RankGroups
    private let state = Mutex(State())
    /// Whether answers are drawn prompt by prompt, beside learning.
    let samplesAhead: Bool

    init(_ groups: RankGroups, samplesAhead: Bool) {
        self.groups = groups
        self.samplesAhead = samplesAhead
    }

    /// The policy has other weights now.
    func changed() { state.withLock { $0.installed = nil } }

    func enter(_ place: RankProgress.Place) {
        // An evaluation belongs to the step before it.
        state.withLock { $0.step = max(0, place.phase == Phase.evaluate.name ? place.step : place.step - 1) }
    }

    var step: Int { state.withLock { $0.step } }

    /// Brings the policy's weights to the samplers, where they have others.
    /// - Parameter version: what they become; nil: the policy's own count.
    /// - Returns: what it took; nothing where nothing was to be done.
    @discardableResult
    func install(version: Int?) async throws -> PhaseMetrics {
        if state.withLock({ $0.installed != nil }) { return [:] }
        let start = ContinuousClock.now, call = DeliverWeights(version: version)
        let deliveries = try await RankGroups.all(
            [groups[.actor], groups[.rollout]].map { try $0.issue(call, .broadcast, .all) })
        let versions = Set(deliveries.joined().map(\.version))
        guard versions.count == 1, let installed = versions.first else {
            throw WorkerError(.ranks, "ranks tell of several versions of the weights: \(versions.sorted())")
        }
        state.withLock { $0.installed = installed }
        return [
            "perf/weight_sync_seconds": (ContinuousClock.now - start) / .seconds(1),
            "perf/weight_sync_bytes": Double(deliveries.joined().reduce(0) { $0 + $1.receivedBytes }),
        ]
    }

    /// - Throws: ``WorkerError`` where a sampler answers with other weights than those that were brought to it.
    func check(_ version: Int, of name: String) throws(WorkerError) {
        let installed = state.withLock { $0.installed }
        guard installed != version else { return }
        throw WorkerError(
            .ranks,
            "\(name) samples from weights of version \(version), and those brought to it are of version "
                + "\(installed.map(String.init) ?? "none"): this is a fault of Fledge")
    }
}
