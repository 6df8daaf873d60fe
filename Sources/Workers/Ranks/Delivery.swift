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
        /// What they were brought last, if anything; and how often the policy has changed.
        var last: Int?
        var changes = 0
        /// How often the samplers have been started anew.
        var link = 0
        /// Steps that are done, and where the run is, as the loop told.
        var step = 0
        var place = RankProgress.Place()
    }
    private let groups: RankGroups
    private let state = Mutex(State())
    /// Whether answers are drawn prompt by prompt, beside learning.
    let samplesAhead: Bool
    /// Whether samplers may be lost and started anew while the policy's ranks go on.
    private let survivesLosses: Bool

    init(_ groups: RankGroups, samplesAhead: Bool, survivesLosses: Bool) {
        self.groups = groups
        self.samplesAhead = samplesAhead
        self.survivesLosses = survivesLosses
    }

    /// The policy has other weights now.
    func changed() {
        state.withLock { state in
            state.installed = nil
            state.changes += 1
        }
    }

    /// The samplers are lost: nobody is to wait for them.
    func breakLink() async throws {
        _ = try await groups[.actor].call(BreakLink(link: state.withLock { $0.link }))
    }

    /// They are there again, as they were before the first time; where answers are drawn beside learning, they get the weights that
    /// the policy has now, under the version of those that they had.
    func startedAnew() async throws {
        let (last, changes) = state.withLock { state in
            state.link += 1
            let was = state.installed
            state.installed = nil
            return (state.last, was == nil ? -1 : state.changes)
        }
        let place = state.withLock { $0.place }
        _ = try await groups[.rollout].call(EnterPhase(place: place), .broadcast, .nothing)
        guard samplesAhead, let last else { return }
        _ = try await deliver(version: last)
        state.withLock { if $0.changes == changes { $0.installed = last } }
    }

    func enter(_ place: RankProgress.Place) {
        // An evaluation belongs to the step before it.
        state.withLock { state in
            state.step = max(0, place.phase == Phase.evaluate.name ? place.step : place.step - 1)
            state.place = place
        }
    }

    var step: Int { state.withLock { $0.step } }

    /// Brings the policy's weights to the samplers, where they have others.
    /// - Parameter version: what they become; nil: the policy's own count.
    /// - Returns: what it took; nothing where nothing was to be done.
    @discardableResult
    func install(version: Int?) async throws -> PhaseMetrics {
        if state.withLock({ $0.installed != nil }) { return [:] }
        let start = ContinuousClock.now, deliveries = try await deliver(version: version)
        let versions = Set(deliveries.map(\.version))
        guard versions.count == 1, let installed = versions.first else {
            throw WorkerError(.ranks, "ranks tell of several versions of the weights: \(versions.sorted())")
        }
        state.withLock { state in
            state.installed = installed
            state.last = installed
        }
        return [
            "perf/weight_sync_seconds": (ContinuousClock.now - start) / .seconds(1),
            "perf/weight_sync_bytes": Double(deliveries.reduce(0) { $0 + $1.receivedBytes }),
        ]
    }

    private func deliver(version: Int?) async throws -> [WeightDelivery] {
        let call = DeliverWeights(version: version, link: state.withLock { $0.link })
        guard survivesLosses else {
            return try await RankGroups.all(
                [groups[.actor], groups[.rollout]].map { try $0.issue(call, .broadcast, .all) }
            ).flatMap { $0 }
        }
        // The samplers come when the policy's ranks do: they do not wait through an update, in which they would count as late.
        let reached = try groups[.actor].issue(ReachTurn(), .broadcast, .nothing)
        let giving = try groups[.actor].issue(call, .broadcast, .all)
        _ = try await reached.value
        let taken: [WeightDelivery]
        do { taken = try await groups[.rollout].call(call) } catch {
            try await breakLink()
            // Where these have failed, that counts more.
            _ = try await giving.value
            throw error
        }
        let given = try await giving.value
        if let broken = given.compactMap(\.broken).first {
            throw WorkerCallError(
                .connection, "weights were not brought to the samplers: \(broken)", isConsequence: true)
        }
        return given + taken
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
