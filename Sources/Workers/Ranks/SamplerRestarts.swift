import Cluster
import Config
import Flow
import Logging

/// Starts the samplers on a pool of their own anew when one of them is lost, while the other ranks go on; whoever wanted something of
/// them asks again. A prompt's draws are decided by its seed, so that the answers are those that were lost.
actor SamplerRestarts {
    private let gang: RankGang
    private let group: WorkerGroup<RankWorker>
    private let delivery: Delivery
    private let most: Int
    private let log: Logger
    /// How often they have been.
    private var count = 0
    private var underWay: Task<Void, any Error>?

    init(_ gang: RankGang, _ groups: RankGroups, _ delivery: Delivery, most: Int, log: Logger) {
        self.gang = gang
        group = groups[.rollout]
        self.delivery = delivery
        self.most = most
        self.log = log
    }

    /// What comes of `body`, which is done again where a sampler was lost meanwhile.
    /// - Throws: what `body` throws for another reason, or when samplers have been lost too often.
    nonisolated func surviving<Result: Sendable>(
        _ body: @Sendable () async throws -> Result
    ) async throws -> Result {
        while true {
            let before = await count
            do { return try await body() } catch {
                try Task.checkCancellation()
                try await mend(error, since: before)
            }
        }
    }

    /// Returns when the samplers are there again.
    /// - Throws: `error` where no loss of theirs is behind it, or none that a new start helps against.
    private func mend(_ error: any Error, since before: Int) async throws {
        if let underWay { return try await underWay.value }
        guard count == before else { return }
        let task = Task { try await startAnew(error) }
        underWay = task
        defer { underWay = nil }
        try await task.value
    }

    private func startAnew(_ error: any Error) async throws {
        guard let error = error as? WorkerCallError,
            error.code == .lost || error.code == .connection || error.isConsequence,
            let loss = try await gang.loss(within: .seconds(10)), loss.exitCode == nil || loss.isConsequence
        else { throw error }
        guard count < most else { throw loss }
        count += 1
        // The end of a process has been told already.
        let cause = loss.message.contains("has shown no life") ? loss.message + "\n" : ""
        log.warning(
            "\(cause)samplers are started anew, the others go on: restart \(count) of at most \(most) (rollout.max_restarts)"
        )
        let start = ContinuousClock.now
        try await delivery.breakLink()
        do {
            try await gang.restart()
            _ = try await group.call(LoadPolicy(), .broadcast, .nothing)
            try await delivery.startedAnew()
        } catch let again as WorkerCallError { return try await startAnew(again) }
        log.info(
            "samplers are there again after \(((ContinuousClock.now - start) / .seconds(1) * 10).rounded() / 10) s")
    }
}
