import Synchronization

/// Keeps the calls on one worker in the order in which they were issued.
final class CallLane: Sendable {
    private struct State {
        /// Of the next call that is issued.
        var next = 0
        /// Whose turn it is.
        var serving = 0
        var waiting: [Int: CheckedContinuation<Void, any Error>] = [:]
        /// Left before their turn.
        var gone: Set<Int> = []

        mutating func advance() -> CheckedContinuation<Void, any Error>? {
            while gone.remove(serving) != nil { serving += 1 }
            return waiting.removeValue(forKey: serving)
        }
    }
    private let state = Mutex(State())

    func takeTicket() -> Int {
        state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
    }

    /// Runs `body` when all calls before it are done.
    func inTurn<Result: Sendable>(_ ticket: Int, _ body: () async throws -> Result) async throws -> Result {
        defer { leave(ticket) }
        try await wait(ticket)
        return try await body()
    }

    private func wait(_ ticket: Int) async throws {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let result: Result<Void, any Error>? = state.withLock { state in
                    if Task.isCancelled { return .failure(CancellationError()) }
                    if state.serving == ticket { return .success(()) }
                    state.waiting[ticket] = continuation
                    return nil
                }
                if let result { continuation.resume(with: result) }
            }
        } onCancel: {
            state.withLock { $0.waiting.removeValue(forKey: ticket) }?.resume(throwing: CancellationError())
        }
    }

    func leave(_ ticket: Int) {
        state.withLock { state in
            state.gone.insert(ticket)
            return state.advance()
        }?.resume()
    }
}
