public import Flow
import Synchronization

/// One rank of a run, whichever process has its place now.
public final class RankSeat: Sendable {
    public let name: String
    private let current: Mutex<RemoteWorker>

    init(_ worker: RemoteWorker) {
        name = worker.name
        current = Mutex(worker)
    }

    public var worker: RemoteWorker { current.withLock { $0 } }

    /// Another process has the place from now on.
    func take(_ worker: RemoteWorker) {
        let before = current.withLock { current in
            defer { current = worker }
            return current
        }
        before.stop()
    }
}

/// A rank in a group, whichever process has its place when a call comes to its turn.
public struct SeatEndpoint<Worker: Sendable>: WorkerEndpoint {
    public let seat: RankSeat
    public init(_ seat: RankSeat) { self.seat = seat }
    public var name: String { seat.name }

    public func perform<Call: WorkerCall>(
        _ call: OutgoingCall<Call>
    ) async throws -> Call.Answer where Call.Worker == Worker {
        try await RemoteEndpoint(seat.worker).perform(call)
    }
}

/// Ranks that are lost and started anew together, while the others go on.
public final class RankGang: Sendable {
    public let seats: [RankSeat]
    private let startAnew: @Sendable () async throws -> Void

    init(_ seats: [RankSeat], startAnew: @escaping @Sendable () async throws -> Void) {
        self.seats = seats
        self.startAnew = startAnew
    }

    /// Ends what is left of them, and starts them anew.
    /// - Throws: ``ClusterError``, ``Flow/WorkerCallError`` where they cannot be.
    public func restart() async throws { try await startAnew() }

    /// Why the gang is lost, once it is: the loss of a rank that ended through no other one. Waits so long for one.
    /// - Returns: nil where none is lost by then.
    public func loss(within time: Duration) async throws -> WorkerCallError? {
        let limit = ContinuousClock.now + time
        while true {
            let losses = seats.compactMap(\.worker.lostBecause)
            if let cause = losses.first(where: { !$0.isConsequence }) { return cause }
            // All have ended: nobody else will say more.
            if losses.count == seats.count || ContinuousClock.now > limit { return losses.first }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}
