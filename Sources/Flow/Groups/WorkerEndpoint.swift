import Synchronization

/// A worker as its group sees it: in this process or elsewhere.
public protocol WorkerEndpoint<Worker>: Sendable {
    associatedtype Worker: Sendable
    /// What people call it, as `rank 3`.
    var name: String { get }
    /// - Throws: the worker's own error where it is in this process, else ``WorkerCallError``.
    func perform<Call: WorkerCall>(_ call: OutgoingCall<Call>) async throws -> Call.Answer where Call.Worker == Worker
}

/// A worker in this process.
public struct LocalEndpoint<Worker: Sendable>: WorkerEndpoint {
    public let name: String
    public let worker: Worker

    public init(_ name: String, _ worker: Worker) {
        self.name = name
        self.worker = worker
    }

    public func perform<Call: WorkerCall>(
        _ call: OutgoingCall<Call>
    ) async throws -> Call.Answer where Call.Worker == Worker {
        guard let deadline = call.call.deadline else { return try await call.call.perform(on: worker) }
        return try await withThrowingTaskGroup(of: Call.Answer.self) { group in
            group.addTask { try await call.call.perform(on: worker) }
            group.addTask {
                try await Task.sleep(for: deadline)
                throw WorkerCallError(
                    .deadline, "\(name) has not answered \(Call.name) within \(deadline)", worker: name)
            }
            defer { group.cancelAll() }
            guard let answer = try await group.next() else { throw CancellationError() }
            return answer
        }
    }
}

/// A call on its way to one worker or many, turned into bytes once at most.
public final class OutgoingCall<Call: WorkerCall>: Sendable {
    public let call: Call
    private let encoded = Mutex<[UInt8]?>(nil)

    public init(_ call: Call) { self.call = call }

    /// - Throws: what encoding throws.
    public func bytes() throws -> [UInt8] {
        try encoded.withLock { known in
            if let known { return known }
            let bytes = try CallCoder.encode(call)
            known = bytes
            return bytes
        }
    }
}
