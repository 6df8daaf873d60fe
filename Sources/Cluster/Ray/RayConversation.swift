import Foundation
import PythonProcesses

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Speaks with the program beside Ray, from its start to its end.
actor RayConversation {
    private let process: PythonProcess
    private let write: RayWorkers.Sink
    private let outgoing: AsyncStream<[UInt8]>.Continuation
    private let requests: AsyncStream<[UInt8]>
    private var task: Task<Void, Never>?
    private(set) var nodes: [RayNode] = []
    private(set) var versions = (ray: "", python: "")

    private var nextID = 0
    private var names: [Int: String] = [:]
    private var starting: CheckedContinuation<Void, any Error>?
    private var placing: [Int: CheckedContinuation<RayPlace, any Error>] = [:]
    private var running: [Int: CheckedContinuation<Int32, any Error>] = [:]
    private var seats: [Int: RayPlace] = [:]
    private var workers: [Int: RayWorker] = [:]
    /// Events of workers whose process id is on its way to the caller.
    private var early: [Int: [RayEvent]] = [:]
    private var failure: ClusterError?

    init(_ process: PythonProcess, _ write: @escaping RayWorkers.Sink) {
        self.process = process
        self.write = write
        (requests, outgoing) = AsyncStream.makeStream()
    }

    deinit { outgoing.finish() }

    func start(_ connect: RayRequest) async throws {
        let process = process, requests = requests
        let me = Weak(conversation: self)
        task = Task {
            let tail = StandardErrorTail()
            var end = ""
            do {
                let (broken, ending) = try await process.run(tail: tail) { channel in
                    await Self.converse(me, channel, requests)
                }
                end = broken ?? "it \(ending)"
            } catch {
                end = "cannot run '\(process.interpreter)': \(error)"
            }
            await me.conversation?.gone("the program beside Ray: \(end)\(tail.note)")
        }
        outgoing.yield(connect.line)
        try await withCheckedThrowingContinuation { starting = $0 }
    }

    /// The task outlives nobody's interest in it.
    private struct Weak: Sendable {
        weak let conversation: RayConversation?
    }

    /// - Returns: what was wrong with what the program said.
    private static func converse(
        _ me: Weak, _ channel: consuming PythonProcess.Channel, _ requests: AsyncStream<[UInt8]>
    ) async -> String? {
        let writer = channel.writer, group = channel.group
        var reader = channel.reader
        return await withTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                for await request in requests {
                    guard await writer.write(request) else { return }
                }
                guard !Task.isCancelled else { return }
                // It ends its workers, gives their places back, and goes.
                _ = await writer.write(RayRequest("shutdown").line)
                try? await Task.sleep(for: .seconds(15))
                if !Task.isCancelled { Glibc.kill(-group, SIGKILL) }
            }
            defer { tasks.cancelAll() }
            while true {
                switch await reader.next() {
                case .end: return nil
                case .broken: return "it wrote a line that is too long"
                case .frame(let line):
                    guard let event = try? RayEvent(line) else {
                        let text = String(decoding: line.prefix(200), as: UTF8.self)
                        return "what it wrote is no event: \(text)"
                    }
                    await me.conversation?.take(event)
                }
            }
        }
    }

    func send(_ request: RayRequest) { outgoing.yield(request.line) }

    func place(_ request: RayRequest, name: String) async throws -> RayWorkers.Seat {
        if let failure { throw failure }
        var request = request
        nextID += 1
        let id = nextID
        request.id = id
        names[id] = name
        let place = try await withCheckedThrowingContinuation { continuation in
            placing[id] = continuation
            send(request)
        }
        return RayWorkers.Seat(id: id, place: place)
    }

    func run(_ request: RayRequest, _ seat: RayWorkers.Seat) async throws -> RayWorker {
        if let failure { throw failure }
        let process = try await withCheckedThrowingContinuation { continuation in
            running[seat.id] = continuation
            send(request)
        }
        let worker = RayWorker(
            name: names[seat.id] ?? "", node: seat.place.node, processID: process, id: seat.id, conversation: self)
        if let failure { worker.end(Self.lost(failure.message)) } else { workers[seat.id] = worker }
        for event in early.removeValue(forKey: seat.id) ?? [] { take(event) }
        return worker
    }

    private func take(_ event: RayEvent) {
        switch event {
        case .ready(let ray, let python, let found):
            nodes = found
            versions = (ray, python)
            starting?.resume()
            starting = nil
        case .failed(let message):
            let code: ClusterError.Code = message.hasPrefix("no room") ? .noRoom : .noCluster
            let hint =
                message.contains("Could not find any running Ray instance")
                ? "; start one (ray start --head), or name one in cluster.ray.address or RAY_ADDRESS" : ""
            let error = ClusterError(code, "Ray: \(message)\(hint)")
            if let starting {
                self.starting = nil
                starting.resume(throwing: error)
            } else {
                write(.errors, "", error.message)
            }
        case .note(let message): write(.errors, "", "Ray: \(message)")
        case .placed(let id, let place):
            seats[id] = place
            placing.removeValue(forKey: id)?.resume(returning: place)
        case .refused(let id, let message):
            let name = names[id] ?? "?"
            placing.removeValue(forKey: id)?
                .resume(throwing: ClusterError(.noRoom, "worker \(name) has no place on the Ray cluster: \(message)"))
            let node = seats[id]?.node ?? "?"
            running.removeValue(forKey: id)?
                .resume(throwing: ClusterError(.notStarted, "worker \(name) cannot start on node \(node): \(message)"))
        case .started(let id, let process): running.removeValue(forKey: id)?.resume(returning: process)
        case .lines(let id, let lines):
            for line in lines { write(line.stream == 1 ? .output : .errors, names[id] ?? "?", line.text) }
        case .ended(let id, _, _), .lost(let id, _, _):
            guard let worker = workers.removeValue(forKey: id) else {
                // Only of one that is known to be there, or about to.
                if names[id] != nil { early[id, default: []].append(event) }
                return
            }
            worker.end(Self.end(event))
            send(RayRequest("release", id: id))
        }
    }

    private static func end(_ event: RayEvent) -> WorkerEnd {
        switch event {
        case .ended(_, let code, let tail):
            WorkerEnd(exit: code < 0 ? .signaled(-code) : .exited(code), standardErrorTail: tail)
        case .lost(_, let message, let nodeLost):
            WorkerEnd(exit: .signaled(SIGKILL), standardErrorTail: [message], nodeLost: nodeLost)
        default: preconditionFailure("\(event) ends nothing")
        }
    }

    private static func lost(_ message: String) -> WorkerEnd {
        WorkerEnd(exit: .signaled(SIGKILL), standardErrorTail: [message])
    }

    /// The program has ended, and with it all actors.
    private func gone(_ message: String) {
        let error = ClusterError(.noCluster, message)
        failure = error
        starting?.resume(throwing: error)
        starting = nil
        for waiter in placing.values { waiter.resume(throwing: error) }
        for waiter in running.values { waiter.resume(throwing: error) }
        placing = [:]
        running = [:]
        for worker in workers.values { worker.end(Self.lost(message)) }
        workers = [:]
    }

    /// Ends all workers and the program, and waits until it is gone.
    func shutdown() async {
        outgoing.finish()
        await task?.value
    }
}
