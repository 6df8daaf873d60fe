import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Worker processes on this host. None outlives this process: the kernel kills them with it.
public final class LocalWorkers: WorkerHost {
    /// Takes whole lines, without their ends, with the worker's name, on a thread of its own.
    public typealias Sink = @Sendable (Launcher.Stream, _ name: String, String) -> Void

    private let executable: String
    private let environment: [String: String]
    private let write: Sink

    private struct Request {
        var plan: WorkerProcessPlan
        var number: Int
        var started: CheckedContinuation<any WorkerProcess, any Error>
    }
    private struct State {
        var requests: [Request] = []
        var signals: [(worker: LocalWorker, signal: Int32)] = []
        var count = 0
        var isOver = false
        var hasThread = false
        var leaving: [CheckedContinuation<Void, Never>] = []
    }
    private let state = Mutex(State())
    private let wake: WakePipe

    /// - Parameter environment: of every worker; a plan's own variables count before these.
    /// - Throws: ``ClusterError`` with code `system`.
    public init(executable: String, environment: [String: String], write: @escaping Sink) throws {
        self.executable = executable
        self.environment = environment
        self.write = write
        wake = try WakePipe()
    }

    public func start(_ worker: WorkerProcessPlan) async throws -> any WorkerProcess {
        try await withCheckedThrowingContinuation { continuation in
            let isOver = state.withLock { state in
                if state.isOver { return true }
                state.requests.append(Request(plan: worker, number: state.count, started: continuation))
                state.count += 1
                if !state.hasThread {
                    state.hasThread = true
                    // The kernel kills the workers when the thread that started them ends: one that does nothing else.
                    let thread = Thread { self.supervise() }
                    thread.stackSize = 1 << 20
                    thread.start()
                }
                return false
            }
            if isOver {
                continuation.resume(throwing: ClusterError(.system, "\(worker.name) cannot be started: the run ends"))
            }
            wake.write()
        }
    }

    /// Kills what runs still, and returns when all have ended.
    public func shutdown() async {
        await withCheckedContinuation { continuation in
            let isDone = state.withLock { state in
                state.isOver = true
                if !state.hasThread { return true }
                state.leaving.append(continuation)
                return false
            }
            if isDone { continuation.resume() } else { wake.write() }
        }
    }

    func signal(_ worker: LocalWorker, _ signal: Int32) {
        state.withLock { $0.signals.append((worker, signal)) }
        wake.write()
    }

    // MARK: - The thread that looks after them

    private func supervise() {
        var running: [(worker: LocalWorker, process: RankProcess)] = []
        while true {
            RankOutput.wait(running.flatMap(\.process.outputs), also: wake.reader, milliseconds: 50)
            wake.drain()
            let (requests, signals, isOver) = state.withLock { state in
                defer {
                    state.requests = []
                    state.signals = []
                }
                return (state.requests, state.signals, state.isOver)
            }
            for request in requests { start(request, &running) }
            for (worker, signal) in signals {
                guard let process = running.first(where: { $0.worker === worker })?.process else { continue }
                if signal == SIGKILL { process.kill() } else { process.send(signal) }
            }
            if isOver { for (_, process) in running { process.kill() } }
            for (worker, process) in running { relay(worker, process) }
            running.removeAll { worker, process in
                guard let exit = process.checkExit() else { return false }
                // What it started and left behind, and its last words.
                process.kill()
                RankOutput.wait(process.outputs, milliseconds: 50)
                relay(worker, process)
                for output in process.outputs { output.rest().map { write(output.stream, worker.name, $0) } }
                worker.end(WorkerEnd(exit: exit, standardErrorTail: process.lastErrors))
                return true
            }
            guard isOver, running.isEmpty else { continue }
            let leaving = state.withLock { state -> [CheckedContinuation<Void, Never>]? in
                guard state.requests.isEmpty else { return nil }
                state.hasThread = false
                defer { state.leaving = [] }
                return state.leaving
            }
            guard let leaving else { continue }
            for one in leaving { one.resume() }
            return
        }
    }

    private func start(_ request: Request, _ running: inout [(worker: LocalWorker, process: RankProcess)]) {
        let plan = request.plan
        var variables = environment.merging(plan.environment) { $1 }
        variables[RankEnvironment.Names.launcher] = "\(getpid())"
        do {
            let process = try RankProcess(
                .init(
                    name: plan.name, executable: executable, arguments: plan.arguments, environment: variables,
                    socket: plan.socket), number: request.number)
            let worker = LocalWorker(name: plan.name, processID: process.process, host: self)
            running.append((worker, process))
            request.started.resume(returning: worker)
        } catch { request.started.resume(throwing: error) }
    }

    private func relay(_ worker: LocalWorker, _ process: RankProcess) {
        for output in process.outputs { for line in output.lines() { write(output.stream, worker.name, line) } }
    }
}

/// A worker process on this host.
final class LocalWorker: WorkerProcess {
    let name: String
    let processID: Int32
    var node: String { "127.0.0.1" }
    private let host: LocalWorkers
    private struct State {
        var end: WorkerEnd?
        var waiting: [CheckedContinuation<WorkerEnd, Never>] = []
    }
    private let state = Mutex(State())

    init(name: String, processID: Int32, host: LocalWorkers) {
        self.name = name
        self.processID = processID
        self.host = host
    }

    func ended() async -> WorkerEnd {
        await withCheckedContinuation { continuation in
            let known = state.withLock { state in
                if state.end == nil { state.waiting.append(continuation) }
                return state.end
            }
            if let known { continuation.resume(returning: known) }
        }
    }

    func signal(_ signal: Int32) async { host.signal(self, signal) }
    /// It, and what it started.
    func kill() async { host.signal(self, SIGKILL) }

    fileprivate func end(_ end: WorkerEnd) {
        for one in state.withLock({ state in
            state.end = end
            defer { state.waiting = [] }
            return state.waiting
        }) { one.resume(returning: end) }
    }
}

/// Wakes a thread that waits for output.
private final class WakePipe: Sendable {
    let reader: Int32
    private let writer: Int32

    init() throws {
        (reader, writer) = try RankProcess.pipe()
    }

    func write() {
        var byte: UInt8 = 1
        _ = Glibc.write(writer, &byte, 1)
    }

    func drain() {
        var buffer = [UInt8](repeating: 0, count: 256)
        while read(reader, &buffer, buffer.count) == buffer.count {}
    }

    deinit {
        close(reader)
        close(writer)
    }
}
