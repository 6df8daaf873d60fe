import Flow
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Synchronization

/// Where workers register at the controller.
public final class WorkerRegistry: Sendable {
    public let settings: TransportSettings
    private struct State {
        /// Of the workers that are awaited or have come.
        var expected: Set<String> = []
        var introduced: [String: WorkerIntroduction] = [:]
        var waiting: [String: CheckedContinuation<WorkerIntroduction, any Error>] = [:]
    }
    private let state = Mutex(State())

    public init(_ settings: TransportSettings) { self.settings = settings }

    /// Takes registrations while `body` runs, which gets the address.
    /// - Throws: ``ClusterError`` with code `system` when no port can be had at `host`.
    public func run<Result: Sendable>(host: String, _ body: (Address) async throws -> Result) async throws -> Result {
        try await Wire.server(host: host, settings, services: [Service(registry: self)]).whileServing(host: host, body)
    }

    /// From now on a worker of this name may register, once.
    func expect(_ name: String) { _ = state.withLock { $0.expected.insert(name) } }

    /// - Throws: `CancellationError`.
    func introduction(of name: String) async throws -> WorkerIntroduction {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<WorkerIntroduction, any Error>? = state.withLock { state in
                    if let known = state.introduced[name] { return .success(known) }
                    if Task.isCancelled { return .failure(CancellationError()) }
                    state.waiting[name] = continuation
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            state.withLock { $0.waiting.removeValue(forKey: name) }?.resume(throwing: CancellationError())
        }
    }

    /// Lets the name be registered anew, for a worker that is started again.
    func forget(_ name: String) {
        state.withLock { state in
            state.introduced[name] = nil
            state.expected.remove(name)
        }
    }

    fileprivate func register(_ introduction: WorkerIntroduction) throws {
        let waiting = try state.withLock { state in
            guard state.expected.contains(introduction.name), state.introduced[introduction.name] == nil else {
                throw WorkerCallError(
                    .refused, "no worker '\(introduction.name)' is awaited, or it has registered already")
            }
            state.introduced[introduction.name] = introduction
            return state.waiting.removeValue(forKey: introduction.name)
        }
        waiting?.resume(returning: introduction)
    }

    private struct Service: RegistrableRPCService {
        let registry: WorkerRegistry

        func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
            router.registerHandler(
                forMethod: Wire.Registry.register, deserializer: Wire.Deserializer(), serializer: Wire.Serializer()
            ) { request, _ in
                let request = try await ServerRequest(stream: request)
                let frame: Wire.Frame
                do {
                    try registry.register(CallCoder.decode(WorkerIntroduction.self, from: request.message.body))
                    frame = Wire.Frame(body: [])
                } catch {
                    let fault = error as? WorkerCallError ?? WorkerCallError(.failed, "\(error)")
                    frame = Wire.Frame(kind: .fault, body: try CallCoder.encode(fault))
                }
                return StreamingServerResponse(single: ServerResponse(message: frame))
            }
        }
    }

    // MARK: - Starting workers

    /// Starts workers and waits until each has registered.
    /// - Parameter deadline: how long one may take to.
    /// - Throws: ``ClusterError`` when one cannot be started, ``Flow/WorkerCallError`` when one ends or does not register in time. What
    ///   was started is ended then.
    public func start(
        _ plans: [WorkerProcessPlan], on host: any WorkerHost, at controller: Address, deadline: Duration
    ) async throws -> [RemoteWorker] {
        var processes: [any WorkerProcess] = []
        do {
            for var plan in plans {
                expect(plan.name)
                let place = WorkerPlace(name: plan.name, controller: controller, settings: settings)
                plan.environment.merge(place.variables) { $1 }
                processes.append(try await host.start(plan))
            }
            return try await withThrowingTaskGroup(of: (Int, RemoteWorker).self) { group in
                for (index, process) in processes.enumerated() {
                    group.addTask { (index, try await self.worker(process, deadline: deadline)) }
                }
                var workers: [(Int, RemoteWorker)] = []
                while let worker = try await group.next() { workers.append(worker) }
                return workers.sorted { $0.0 < $1.0 }.map(\.1)
            }
        } catch {
            for process in processes { await process.kill() }
            for plan in plans { forget(plan.name) }
            throw error
        }
    }

    /// Waits for workers that somebody else started.
    public func await(_ names: [String], deadline: Duration) async throws -> [RemoteWorker] {
        for name in names { expect(name) }
        var workers: [RemoteWorker] = []
        for name in names {
            let introduction = try await within(deadline, name) { try await self.introduction(of: name) }
            workers.append(try RemoteWorker(introduction, process: nil, loss: Loss(), settings: settings))
        }
        return workers
    }

    private func worker(_ process: any WorkerProcess, deadline: Duration) async throws -> RemoteWorker {
        let name = process.name, loss = Loss(watching: process)
        let introduction = try await within(deadline, name) {
            try await withThrowingTaskGroup(of: WorkerIntroduction.self) { group in
                group.addTask { try await self.introduction(of: name) }
                group.addTask { throw try await loss.wait() }
                defer { group.cancelAll() }
                guard let introduction = try await group.next() else { throw CancellationError() }
                return introduction
            }
        }
        return try RemoteWorker(introduction, process: process, loss: loss, settings: settings)
    }

    private func within<Result: Sendable>(
        _ deadline: Duration, _ name: String, _ body: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        try await withThrowingTaskGroup(of: Result.self) { group in
            group.addTask(operation: body)
            group.addTask {
                try await Task.sleep(for: deadline)
                throw WorkerCallError(.lost, "\(name) has not registered within \(deadline)", worker: name)
            }
            defer { group.cancelAll() }
            guard let result = try await group.next() else { throw CancellationError() }
            return result
        }
    }
}
