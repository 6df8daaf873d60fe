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

    /// Starts all ranks, runs `body` with them, and waits for their ends. Where one is lost meanwhile, `body` is cancelled.
    /// - Throws: ``ClusterError`` or ``Flow/WorkerCallError`` when they cannot be started; none is left then.
    public func run<Value: Sendable>(
        _ body: @escaping @Sendable ([RemoteWorker]) async throws -> Value
    ) async throws -> Outcome<Value> {
        let socket = try ListeningSocket(host: "127.0.0.1")
        let registry = WorkerRegistry(settings), names = (0..<count).map { "rank \($0)" }
        let host = try LocalWorkers(
            executable: executable, environment: environment, socket: (names[0], socket.descriptor)
        ) { [write] stream, name, line in write(stream, "[\(name)] \(line)") }
        let plans = names.enumerated().map { rank, name in
            var place = RankEnvironment(
                rank: rank, size: count, localRank: rank, host: "127.0.0.1", port: socket.port, launcher: getpid())
            if rank == 0 { place.storeSocket = RankProcess.inheritedSocket }
            return WorkerProcessPlan(name: name, arguments: arguments, environment: place.variables)
        }
        do {
            let outcome = try await registry.run(host: "127.0.0.1") { controller in
                let workers = try await registry.start(plans, on: host, at: controller, deadline: startDeadline)
                socket.close()
                defer { for worker in workers { worker.stop() } }
                let ends = RankEnds(workers, explained: explained, write: write)
                let result: Result<Value, any Error>
                do { result = .success(try await withLosses(workers, body)) } catch {
                    result = .failure(error)
                    tell(error, ends)
                    // The ranks find out about one another, and say it; what went wrong here does not concern them.
                    if !Self.endsRanks(error) {
                        ends.hush()
                        for worker in workers { await worker.process?.kill() }
                    }
                }
                await end(workers, ends)
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
        _ workers: [RemoteWorker], _ body: @escaping @Sendable ([RemoteWorker]) async throws -> Value
    ) async throws -> Value {
        try await withThrowingTaskGroup(of: Value?.self) { group in
            group.addTask { try await body(workers) }
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

    private func end(_ workers: [RemoteWorker], _ ends: RankEnds) async {
        var limit = ContinuousClock.now + grace
        while ends.count < workers.count {
            let isLate = ContinuousClock.now > limit
            for worker in workers where !ends.has(worker.name) {
                guard isLate || RankProcess.isStopped(worker.processID) else { continue }
                write(
                    .errors,
                    "\(worker.name) (process \(worker.processID)) \(isLate ? "does not end" : "stands still"), and is killed"
                )
                await worker.process?.kill()
            }
            if isLate { limit = .now + grace }
            await ends.next(within: .milliseconds(50))
        }
    }
}

/// How the ranks of a run end, in the order in which they do.
private final class RankEnds: Sendable {
    private struct State {
        var exits: [(name: String, exit: RankExit)] = []
        var hasTold = false
    }
    private let state = Mutex(State())
    private let start = ContinuousClock.now
    private let explained: Set<Int32>
    private let write: @Sendable (Launcher.Stream, String) -> Void

    init(
        _ workers: [RemoteWorker], explained: Set<Int32>, write: @escaping @Sendable (Launcher.Stream, String) -> Void
    ) {
        self.explained = explained
        self.write = write
        for worker in workers {
            guard let process = worker.process else { continue }
            Task { self.add(process, await process.ended(), alone: workers.count == 1) }
        }
    }

    var count: Int { state.withLock { $0.exits.count } }
    func has(_ name: String) -> Bool { state.withLock { $0.exits.contains { $0.name == name } } }
    var exitCode: Int32 { Cluster.exitCode(of: state.withLock { $0.exits.map(\.exit) }) }

    /// Nothing more is said of them.
    func hush() { state.withLock { $0.hasTold = true } }

    func next(within time: Duration) async { try? await Task.sleep(for: time) }

    private func add(_ process: any WorkerProcess, _ end: WorkerEnd, alone: Bool) {
        let exit = end.exit
        let isFirst = state.withLock { state in
            state.exits.append((process.name, exit))
            // What ended because of another rank says so itself, and what was interrupted needs no comment.
            guard !exit.isSuccess, exit != .exited(RankExit.lostOther), exit != .exited(130), !alone, !state.hasTold
            else { return false }
            state.hasTold = true
            return true
        }
        guard isFirst else { return }
        let seconds = Int((ContinuousClock.now - start) / .seconds(1))
        write(
            .errors,
            "\(process.name) (process \(process.processID)) \(exit), \(seconds) s after the start; the others are ended"
        )
        if case .exited(let code) = exit, explained.contains(code) { return }
        if !end.standardErrorTail.isEmpty { write(.errors, "the last it wrote to standard error:") }
        for line in end.standardErrorTail { write(.errors, "  " + line) }
    }
}
