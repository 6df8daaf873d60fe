import Synchronization

/// Workers that carry out the same calls together, as the controller sees them.
///
/// Each worker does its calls in the order in which they were issued, so that workers which talk among themselves meet in the same
/// order everywhere. Calls on different groups know nothing of one another: `async let` overlaps them.
public struct WorkerGroup<Worker: Sendable>: Sendable {
    public let name: String
    public let endpoints: [any WorkerEndpoint<Worker>]
    public let mesh: GroupMesh
    private let lanes: [CallLane]
    /// How long the error of a worker that is at fault may come after that of one that suffered from it.
    private let patience: Duration
    private let order = Order()

    private final class Order: Sendable { let mutex = Mutex(()) }

    public init(
        name: String, endpoints: [any WorkerEndpoint<Worker>], mesh: GroupMesh, patience: Duration = .seconds(10)
    ) {
        precondition(mesh.count == endpoints.count, "\(endpoints.count) workers for a mesh of \(mesh)")
        self.name = name
        self.endpoints = endpoints
        self.mesh = mesh
        self.patience = patience
        lanes = endpoints.map { _ in CallLane() }
    }

    /// Data parallel workers of this process.
    public init(name: String, workers: [Worker]) {
        self.init(
            name: name, endpoints: workers.enumerated().map { LocalEndpoint("\(name)/\($0)", $1) },
            mesh: .data(workers.count))
    }

    public var count: Int { endpoints.count }

    /// The same call on every worker, and every answer.
    public func call<Call: WorkerCall>(_ call: Call) async throws -> [Call.Answer] where Call.Worker == Worker {
        try await self.call(call, .broadcast, .all)
    }

    /// Shares `input` out, has the workers do their calls, and joins their answers.
    public func call<Input: Sendable, Call: WorkerCall, Output: Sendable>(
        _ input: Input, _ dispatch: Dispatch<Input, Call>, _ collect: Collect<Call.Answer, Output>
    ) async throws -> Output where Call.Worker == Worker {
        try await issue(input, dispatch, collect).value
    }

    /// Puts a call behind those that were issued before, and returns at once.
    public func issue<Input: Sendable, Call: WorkerCall, Output: Sendable>(
        _ input: Input, _ dispatch: Dispatch<Input, Call>, _ collect: Collect<Call.Answer, Output>
    ) throws -> PendingCall<Output> where Call.Worker == Worker {
        let assignments = try dispatch.assign(input, mesh)
        precondition(assignments.allSatisfy { endpoints.indices.contains($0.worker) }, "a rule names an unknown worker")
        // All at once, so that two calls are in the same order on every worker.
        let tickets = order.mutex.withLock { _ in
            assignments.map { Call.waitsItsTurn ? lanes[$0.worker].takeTicket() : nil }
        }
        return PendingCall(
            task: Task {
                var answers = try await answers(assignments, tickets)
                answers.sort { $0.worker < $1.worker }
                return try collect.join(answers)
            })
    }

    private func answers<Call: WorkerCall>(
        _ assignments: [Assignment<Call>], _ tickets: [Int?]
    ) async throws -> [Answered<Call.Answer>] where Call.Worker == Worker {
        try await withThrowingTaskGroup(of: Answered<Call.Answer>?.self) { group in
            for (assignment, ticket) in zip(assignments, tickets) {
                let endpoint = endpoints[assignment.worker], lane = lanes[assignment.worker]
                group.addTask {
                    let answer =
                        if let ticket {
                            try await lane.inTurn(ticket) { try await endpoint.perform(assignment.call) }
                        } else { try await endpoint.perform(assignment.call) }
                    return Answered(
                        worker: assignment.worker, answer: answer, rows: assignment.rows, speaks: assignment.speaks)
                }
            }
            return try await collected(&group, count: assignments.count)
        }
    }

    /// All answers; or the error of the worker that is at fault, for which those that suffered from it wait a while.
    private func collected<Answer: Sendable>(
        _ group: inout ThrowingTaskGroup<Answered<Answer>?, any Error>, count: Int
    ) async throws -> [Answered<Answer>] {
        var answers: [Answered<Answer>] = []
        var consequence: (any Error)?
        var left = count
        defer { group.cancelAll() }
        while left > 0 {
            do {
                // nil: the time that those who suffered would wait is over.
                guard let answer = try await group.next() ?? nil else { break }
                answers.append(answer)
                left -= 1
            } catch {
                left -= 1
                guard (error as? WorkerCallError)?.isConsequence == true else { throw error }
                if consequence == nil {
                    group.addTask { [patience] in
                        try await Task.sleep(for: patience)
                        return nil
                    }
                }
                consequence = consequence ?? error
            }
        }
        if let consequence { throw consequence }
        return answers
    }
}

/// A call that was issued.
public struct PendingCall<Output: Sendable>: Sendable {
    fileprivate let task: Task<Output, any Error>

    /// What came of it. Whoever is cancelled while waiting cancels the call.
    public var value: Output {
        get async throws {
            try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
        }
    }

    public func cancel() { task.cancel() }
}
