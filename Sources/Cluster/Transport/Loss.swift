import Flow
import Synchronization

/// That a worker is lost, once it is; until then one can wait for it.
final class Loss: Sendable {
    private struct State {
        var error: WorkerCallError?
        var next = 0
        var waiting: [Int: CheckedContinuation<WorkerCallError, any Error>] = [:]
    }
    private let state = Mutex(State())

    init() {}

    /// That of a process, once it has ended.
    convenience init(watching process: any WorkerProcess) {
        self.init()
        Task { [self] in set(process.description(of: await process.ended(), process.name)) }
    }

    var error: WorkerCallError? { state.withLock { $0.error } }

    /// The first one counts.
    func set(_ error: WorkerCallError) {
        let waiting = state.withLock { state -> [CheckedContinuation<WorkerCallError, any Error>] in
            guard state.error == nil else { return [] }
            state.error = error
            defer { state.waiting = [:] }
            return Array(state.waiting.values)
        }
        for one in waiting { one.resume(returning: error) }
    }

    /// - Throws: `CancellationError`.
    func wait() async throws -> WorkerCallError {
        let number = state.withLock { state in
            state.next += 1
            return state.next
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let result: Result<WorkerCallError, any Error>? = state.withLock { state in
                    if let error = state.error { return .success(error) }
                    if Task.isCancelled { return .failure(CancellationError()) }
                    state.waiting[number] = continuation
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            state.withLock { $0.waiting.removeValue(forKey: number) }?.resume(throwing: CancellationError())
        }
    }
}
