public import Flow
import Synchronization

/// A worker in another process, as the controller sees it: a heartbeat of its own tells whether it lives, whatever its calls do.
public final class RemoteWorker: Sendable {
    public let name: String
    public let address: Address
    public let processID: Int32
    /// nil where somebody else started it.
    public let process: (any WorkerProcess)?
    private let settings: TransportSettings
    private let client: WorkerClient
    private let beats: WorkerClient
    private let loss: Loss
    private let pulse = Mutex<WorkerPulse?>(nil)
    private let watching = Mutex<Task<Void, Never>?>(nil)

    init(
        _ introduction: WorkerIntroduction, process: (any WorkerProcess)?, loss: Loss, settings: TransportSettings
    ) throws {
        name = introduction.name
        address = introduction.address
        processID = introduction.processID
        self.process = process
        self.loss = loss
        self.settings = settings
        client = try WorkerClient(name: name, address: address, settings: settings)
        // Of its own, so that no heartbeat waits behind rows of many megabytes.
        beats = try WorkerClient(name: name, address: address, settings: settings)
        let watch = Task { [weak self] in await Self.watch(settings) { self } }
        watching.withLock { $0 = watch }
    }

    deinit { stop() }

    /// What it said of itself last.
    public var lastPulse: WorkerPulse? { pulse.withLock { $0 } }
    /// Why it is lost; nil: it is not.
    public var lostBecause: WorkerCallError? { loss.error }
    /// Returns when it is lost.
    public func lost() async throws -> WorkerCallError { try await loss.wait() }

    /// Looks after it no more.
    public func stop() {
        watching.withLock { $0 }?.cancel()
        client.close()
        beats.close()
    }

    private static func watch(_ settings: TransportSettings, _ worker: () -> RemoteWorker?) async {
        var failed = 0
        while !Task.isCancelled, failed < TransportSettings.beatsUntilLost {
            do {
                guard try await worker()?.feel() == true else { return }
                failed = 0
                try await Task.sleep(for: settings.beat)
            } catch is CancellationError { return } catch { failed += 1 }
        }
        worker()?.declareSilent()
    }

    /// One heartbeat. - Returns: whether to go on.
    private func feel() async throws -> Bool {
        do {
            let start = ContinuousClock.now
            do {
                let bytes = try await beats.ask(Wire.Worker.beat, [], timeout: settings.beatTimeout)
                let felt = try CallCoder.decode(WorkerPulse.self, from: bytes)
                pulse.withLock { $0 = felt }
            } catch let error as WorkerCallError where error.code == .connection {
                // A refused connection fails at once, which says no more than silence does.
                try await Task.sleep(for: max(.zero, settings.beatTimeout - (.now - start)))
                throw error
            }
            return true
        } catch let error as WorkerCallError
            where ![.connection, .deadline].contains(error.code)
        {
            // It lives, and says that something is wrong with it.
            loss.set(error)
            return false
        }
    }

    private func declareSilent() {
        let seconds = Int((settings.lostAfter / .seconds(1)).rounded())
        let isStopped = process != nil && RankProcess.isStopped(processID)
        let last = lastPulse.map { $0.call.map { "it was doing \($0)" } ?? "it was idle" } ?? "it has never answered"
        loss.set(
            WorkerCallError(
                .lost,
                "\(name) (process \(processID)) \(isStopped ? "is stopped" : "hangs") and has shown no life for \(seconds) s; \(last)",
                worker: name))
    }

    /// Releases rows that it keeps.
    public func release(_ reference: RowsReference) async throws {
        _ = try await orLost { [client] in
            try await client.ask(Wire.Worker.release, try CallCoder.encode(reference.id))
        }
    }

    /// Whichever comes first: the answer, or that the worker is lost.
    fileprivate func orLost(_ ask: @escaping @Sendable () async throws -> [UInt8]) async throws -> [UInt8] {
        if let error = loss.error { throw error }
        return try await withThrowingTaskGroup(of: [UInt8].self) { group in
            group.addTask(operation: ask)
            group.addTask { [loss] in throw try await loss.wait() }
            defer { group.cancelAll() }
            do {
                guard let answer = try await group.next() else { throw CancellationError() }
                return answer
            } catch let error as WorkerCallError where error.code == .connection {
                // A connection breaks a moment before its other end is seen to be gone.
                group.addTask {
                    try await Task.sleep(for: .seconds(2))
                    throw error
                }
                _ = try await group.next()
                throw error
            }
        }
    }

    fileprivate func ask(_ call: String, _ bytes: @escaping @Sendable () throws -> [UInt8], _ deadline: Duration?)
        async throws
        -> [UInt8]
    {
        try await orLost { [client] in
            try await client.ask(Wire.Worker.call, try bytes(), call: call, timeout: deadline)
        }
    }
}

extension WorkerProcess {
    /// How it ended, for whoever waits for an answer.
    func description(of end: WorkerEnd, _ name: String) -> WorkerCallError {
        var text =
            end.nodeLost
            ? "\(name) (process \(processID)) was lost with its host \(node)"
            : "\(name) (process \(processID)) \(end.exit)"
        if !end.standardErrorTail.isEmpty {
            text += "\nthe last it wrote to standard error:"
            for line in end.standardErrorTail { text += "\n  " + line }
        }
        var error = WorkerCallError(.lost, text, worker: name)
        if case .exited(let code) = end.exit {
            error.exitCode = code
            error.isConsequence = code == RankExit.lostOther
        }
        return error
    }
}

/// A remote worker in a group.
public struct RemoteEndpoint<Worker: Sendable>: WorkerEndpoint {
    public let worker: RemoteWorker
    public init(_ worker: RemoteWorker) { self.worker = worker }
    public var name: String { worker.name }

    public func perform<Call: WorkerCall>(
        _ call: OutgoingCall<Call>
    ) async throws -> Call.Answer where Call.Worker == Worker {
        let bytes = try await worker.ask(Call.name, { try call.bytes() }, call.call.deadline)
        do { return try CallCoder.decode(Call.Answer.self, from: bytes) } catch {
            throw WorkerCallError(
                .badAnswer, "\(name) answered \(Call.name) with something else: \(error)", worker: name)
        }
    }
}
