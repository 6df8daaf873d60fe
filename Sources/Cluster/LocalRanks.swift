import Flow
import Foundation
import Synchronization

/// The ranks of a run as workers on this host, from their start to their ends: their lines come out with the rank's name before them,
/// the first death ends the others, and none outlives this process.
public struct LocalRanks: Sendable {
    /// What came of a run.
    public struct Outcome<Value: Sendable>: Sendable {
        public var result: Result<Value, any Error>
        /// 0, or the exit code of the first rank that failed by itself, or ``RankExit/lostOther``.
        public var exitCode: Int32
    }

    public var count: Int
    public var executable: String
    /// After the program's name.
    public var arguments: [String]
    public var environment: [String: String]
    public var settings: TransportSettings
    /// How long the others may take to end by themselves after the first one failed.
    public var grace = Duration.seconds(10)
    /// Exit codes with which a rank has said itself why it ends.
    public var explained: Set<Int32> = [1, 2]
    /// How long a rank may take until it registers.
    public var startDeadline = Duration.seconds(120)
    /// Ranks that are lost and started anew together while the others go on, gang by gang; all others are one.
    public var apart: [[Int]] = []
    /// Variables that ranks which are started anew do not get.
    public var firstStartOnly: [String] = []
    private let write: @Sendable (Launcher.Stream, String) -> Void

    /// - Parameter write: where the ranks' lines go: whole, without their ends.
    public init(
        count: Int, executable: String, arguments: [String], environment: [String: String], settings: TransportSettings,
        write: @escaping @Sendable (Launcher.Stream, String) -> Void
    ) {
        self.count = count
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.settings = settings
        self.write = write
    }

    /// Starts all ranks, runs `body` with them, and waits for their ends. Where one is lost meanwhile that no gang of ``apart`` has,
    /// `body` is cancelled; a gang's loss is what its calls throw, and `body`'s to mend.
    /// - Parameter body: gets the ranks, and the gangs of ``apart``.
    /// - Throws: ``ClusterError`` or ``Flow/WorkerCallError`` when they cannot be started; none is left then.
    public func run<Value: Sendable>(
        _ body: @escaping @Sendable ([RankSeat], [RankGang]) async throws -> Value
    ) async throws -> Outcome<Value> {
        let registry = WorkerRegistry(settings)
        let host = try LocalWorkers(executable: executable, environment: environment) { [write] stream, name, line in
            write(stream, "[\(name)] \(line)")
        }
        do {
            let outcome = try await registry.run(host: "127.0.0.1") { controller in
                let start = GangStart(self, registry, host, controller)
                let main = (0..<count).filter { rank in !apart.contains { $0.contains(rank) } }
                let (sockets, plans) = try start.plans([main] + apart)
                let workers = try await registry.start(plans, on: host, at: controller, deadline: startDeadline)
                for socket in sockets { socket.close() }
                let seats = workers.map { RankSeat($0) }
                defer { for seat in seats { seat.worker.stop() } }
                let ends = RankEnds(explained: explained, hasOthers: count > 1, write: write)
                ends.watch(main.map { workers[$0] })
                let linkPort = sockets[0].port
                let gangs = apart.map { ranks in
                    ends.watch(ranks.map { workers[$0] }, othersGoOn: true)
                    return RankGang(ranks.map { seats[$0] }) {
                        try await start.anew(ranks, linkPort: linkPort, ranks.map { seats[$0] }, ends)
                    }
                }
                let result: Result<Value, any Error>
                do {
                    result = .success(
                        try await withLosses(main.map { workers[$0] }) { try await body(seats, gangs) })
                } catch {
                    result = .failure(error)
                    tell(error, ends)
                    // The ranks find out about one another, and say it; what went wrong here does not concern them, nor another gang.
                    for rank in strangers(to: error, among: [main] + apart) {
                        ends.hush(seats[rank].worker)
                        await seats[rank].worker.process?.kill()
                    }
                }
                await end(seats, ends)
                return Outcome(result: result, exitCode: ends.exitCode)
            }
            await host.shutdown()
            return outcome
        } catch {
            await host.shutdown()
            throw error
        }
    }

    private func withLosses<Value: Sendable>(
        _ workers: [RemoteWorker], _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body() }
            for worker in workers {
                group.addTask {
                    let loss = try await worker.lost()
                    // One that ended well was told to.
                    if loss.exitCode == 0 { return nil }
                    throw loss
                }
            }
            defer { group.cancelAll() }
            while let value = try await group.next() {
                if let value { return value }
            }
            throw CancellationError()
        }
    }

    /// The ranks that have nothing to do with an error, and do not end by themselves.
    private func strangers(to error: any Error, among gangs: [[Int]]) -> [Int] {
        guard Self.endsRanks(error) else { return gangs.flatMap { $0 } }
        if gangs.count == 1 { return [] }
        let worker = (error as? WorkerCallError)?.worker
        return gangs.filter { gang in !gang.contains { "rank \($0)" == worker } }.flatMap { $0 }
    }

    /// Whether the rank that an error comes from ends by itself, and the others with it.
    private static func endsRanks(_ error: any Error) -> Bool {
        guard let error = error as? WorkerCallError else { return false }
        return [.failed, .lost, .connection].contains(error.code)
    }

    /// What no process says by its end.
    private func tell(_ error: any Error, _ ends: RankEnds) {
        guard let lost = error as? WorkerCallError, lost.code == .lost, lost.exitCode == nil,
            lost.message.contains("has shown no life")
        else { return }
        write(.errors, lost.message)
    }

    private func end(_ seats: [RankSeat], _ ends: RankEnds) async {
        var limit = ContinuousClock.now + grace
        while true {
            let left = seats.map(\.worker).filter { !ends.has($0) }
            if left.isEmpty { return }
            let isLate = ContinuousClock.now > limit
            for worker in left where isLate || RankProcess.isStopped(worker.processID) {
                write(
                    .errors,
                    "\(worker.name) (process \(worker.processID)) \(isLate ? "does not end" : "stands still"), and is killed"
                )
                await worker.process?.kill()
            }
            if isLate { limit = .now + grace }
            try? await Task.sleep(for: .milliseconds(50))
        }
    }
}

/// Starts gangs of ranks, each with a store of its own.
private struct GangStart: Sendable {
    private let ranks: LocalRanks
    private let registry: WorkerRegistry
    private let host: LocalWorkers
    private let controller: Address

    init(_ ranks: LocalRanks, _ registry: WorkerRegistry, _ host: LocalWorkers, _ controller: Address) {
        self.ranks = ranks
        self.registry = registry
        self.host = host
        self.controller = controller
    }

    /// Of all ranks, in the order of their numbers, with the sockets that each gang's first one inherits: the first gang keeps the
    /// store by which gangs find one another.
    func plans(_ gangs: [[Int]]) throws -> (sockets: [ListeningSocket], plans: [WorkerProcessPlan]) {
        let sockets = try gangs.map { _ in try ListeningSocket(host: "127.0.0.1") }
        var plans: [(rank: Int, plan: WorkerProcessPlan)] = []
        for (gang, socket) in zip(gangs, sockets) {
            for rank in gang {
                plans.append((rank, plan(rank, gangs.count > 1 ? gang : nil, socket, linkPort: sockets[0].port)))
            }
        }
        return (sockets, plans.sorted { $0.rank < $1.rank }.map(\.plan))
    }

    private func plan(_ rank: Int, _ gang: [Int]?, _ socket: ListeningSocket, linkPort: Int) -> WorkerProcessPlan {
        var place = RankEnvironment(
            rank: rank, size: ranks.count, localRank: rank, host: "127.0.0.1", port: socket.port, launcher: getpid())
        if let gang {
            place.gang = gang
            place.linkPort = linkPort
        }
        let isFirst = rank == gang?.first ?? 0
        if isFirst { place.storeSocket = RankProcess.inheritedSocket }
        var plan = WorkerProcessPlan(name: "rank \(rank)", arguments: ranks.arguments, environment: place.variables)
        plan.socket = isFirst ? socket.descriptor : nil
        return plan
    }

    /// Ends what is left of a gang, and starts it again.
    func anew(_ gang: [Int], linkPort: Int, _ seats: [RankSeat], _ ends: RankEnds) async throws {
        for seat in seats { ends.forgive(seat.worker) }
        for seat in seats { await seat.worker.process?.kill() }
        for seat in seats { _ = await seat.worker.process?.ended() }
        let socket = try ListeningSocket(host: "127.0.0.1")
        let plans = gang.map { rank in
            registry.forget("rank \(rank)")
            var plan = plan(rank, gang, socket, linkPort: linkPort)
            for name in ranks.firstStartOnly { plan.environment[name] = "" }
            return plan
        }
        let workers: [RemoteWorker]
        do {
            workers = try await registry.start(plans, on: host, at: controller, deadline: ranks.startDeadline)
        } catch {
            // Not to be taken for the loss of a rank, which others would tell of.
            if error is CancellationError { throw error }
            let names = gang.map { "rank \($0)" }.joined(separator: ", ")
            throw ClusterError(.system, "\(names) cannot be started anew: \(error)")
        }
        socket.close()
        ends.watch(workers, othersGoOn: true)
        for (seat, worker) in zip(seats, workers) { seat.take(worker) }
    }
}

/// How the ranks of a run end, in the order in which they do.
private final class RankEnds: Sendable {
    private struct State {
        var exits: [(process: Int32, exit: RankExit)] = []
        var hasTold = false
        /// Whose ends are nobody's failure: ended from here, or started anew.
        var forgiven: Set<Int32> = []
        /// Nothing is said of these.
        var hushed: Set<Int32> = []
    }
    private let state = Mutex(State())
    private let start = ContinuousClock.now
    private let explained: Set<Int32>
    private let hasOthers: Bool
    private let write: @Sendable (Launcher.Stream, String) -> Void

    init(explained: Set<Int32>, hasOthers: Bool, write: @escaping @Sendable (Launcher.Stream, String) -> Void) {
        self.explained = explained
        self.hasOthers = hasOthers
        self.write = write
    }

    /// - Parameter othersGoOn: whether the loss of one does not end the others.
    func watch(_ workers: [RemoteWorker], othersGoOn: Bool = false) {
        for worker in workers {
            guard let process = worker.process else { continue }
            Task { self.add(process, await process.ended(), othersGoOn: othersGoOn) }
        }
    }

    func has(_ worker: RemoteWorker) -> Bool {
        state.withLock { $0.exits.contains { $0.process == worker.processID } }
    }
    var exitCode: Int32 {
        state.withLock { state in
            Cluster.exitCode(of: state.exits.filter { !state.forgiven.contains($0.process) }.map(\.exit))
        }
    }

    /// Its end is no failure of the run, whatever it is.
    func forgive(_ worker: RemoteWorker) { _ = state.withLock { $0.forgiven.insert(worker.processID) } }

    /// Nor is anything said of it.
    func hush(_ worker: RemoteWorker) {
        forgive(worker)
        _ = state.withLock { $0.hushed.insert(worker.processID) }
    }

    private func add(_ process: any WorkerProcess, _ end: WorkerEnd, othersGoOn: Bool) {
        let exit = end.exit
        let speaks = state.withLock { state in
            state.exits.append((process.processID, exit))
            // What ended because of another rank says so itself, and what was interrupted needs no comment.
            guard !exit.isSuccess, exit != .exited(RankExit.lostOther), exit != .exited(130), hasOthers,
                !state.hushed.contains(process.processID)
            else { return false }
            if othersGoOn { return !state.forgiven.contains(process.processID) }
            defer { state.hasTold = true }
            return !state.hasTold
        }
        guard speaks else { return }
        let seconds = Int((ContinuousClock.now - start) / .seconds(1))
        write(
            .errors,
            "\(process.name) (process \(process.processID)) \(exit), \(seconds) s after the start"
                + (othersGoOn ? "" : "; the others are ended"))
        if case .exited(let code) = exit, explained.contains(code) { return }
        if !end.standardErrorTail.isEmpty { write(.errors, "the last it wrote to standard error:") }
        for line in end.standardErrorTail { write(.errors, "  " + line) }
    }
}
