public import Cluster
import Flow
import Synchronization
import TensorCore

/// A rank in a process of its own: does what the controller asks, until there is nothing more or something is lost.
public struct RankServer: Sendable {
    public let worker: RankWorker
    public let place: WorkerPlace
    /// With which exit code a process ends that failed so.
    private let exitCode: @Sendable (any Error) -> Int32

    public init(_ worker: RankWorker, _ place: WorkerPlace, exitCode: @escaping @Sendable (any Error) -> Int32) {
        self.worker = worker
        self.place = place
        self.exitCode = exitCode
    }

    /// Whether an error may be another rank's doing: such are told by the ranks themselves, which know more than the controller.
    public static func mayComeFromAnother(_ error: any Error) -> Bool { error is TorchError }

    /// - Throws: what a call threw, which the controller knows then, or that another rank is lost.
    public func run() async throws {
        let failure = FirstFailure()
        let members = worker.members
        let server = WorkerServer(
            name: place.name, worker: worker, calls: RankWorker.calls, settings: place.settings,
            describe: { error in
                failure.note(error)
                return WorkerCallError(
                    .failed, "\(error)", worker: place.name, isConsequence: Self.mayComeFromAnother(error),
                    exitCode: exitCode(error))
            })
        try await server.run(host: try Address.own(towards: place.controller)) { address in
            try await place.register(at: address)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    while !worker.isFinished {
                        if let failure = failure.error {
                            // The controller is to hear of it.
                            try await Task.sleep(for: .milliseconds(200))
                            throw failure
                        }
                        try members.watch.verify()
                        try checkProgress(server.pulse)
                        try await Task.sleep(for: .milliseconds(50))
                    }
                }
                group.addTask {
                    try await server.orphaned()
                    throw ClusterError(.system, "the controller at \(place.controller) shows no life: this worker ends")
                }
                defer { group.cancelAll() }
                try await group.next()
            }
            // The last answer is on its way.
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    /// A rank that does nothing in a call is late, though nobody may wait for it in an operation. Reading the model shows no progress.
    private func checkProgress(_ pulse: WorkerPulse) throws {
        let members = worker.members, idle = members.watch.idle, deadline = members.watch.deadline
        guard let call = pulse.call, call != LoadPolicy.name else { return }
        // Other gangs' ranks may be lost meanwhile, which the controller finds out later than this gang's would.
        let waitsForOthers = members.hasOtherGangs && call == DeliverWeights.name
        guard min(idle, .seconds(pulse.seconds)) > (waitsForOthers ? deadline * 2 + .seconds(60) : deadline) else {
            return
        }
        throw WorkerCallError(
            .lost,
            "rank \(members.rank) of \(members.size) gives up: in \(call) it has done nothing for \(Int(idle / .seconds(1))) s; its deadline "
                + "is \(Int(deadline / .seconds(1))) s (\(try members.watch.describe(members.rank)))",
            worker: place.name)
    }
}

private final class FirstFailure: Sendable {
    private let first = Mutex<(any Error)?>(nil)
    var error: (any Error)? { first.withLock { $0 } }
    func note(_ error: any Error) { first.withLock { $0 = $0 ?? error } }
}
