import Synchronization

/// Runs work of others, which may not heed cancellation, for so long and no longer.
enum TimeLimit {
    /// - Throws: ``EpisodeFailure`` `.timedOut` with `what`; what the body throws; `CancellationError`. Work that does not
    ///   heed its cancellation goes on unwatched.
    /// - Parameter late: gives up what the body has made when nobody waits for it any more.
    static func run<Result: Sendable>(
        _ limit: Duration, _ what: String, late: @escaping @Sendable (Result) async -> Void = { _ in },
        _ body: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        let race = Race<Result>()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { waiter in
                let work = Task {
                    do {
                        let result = try await body()
                        if !race.end(.success(result)) { await late(result) }
                    } catch { race.end(.failure(error)) }
                }
                let timer = Task {
                    guard (try? await Task.sleep(for: limit)) != nil else { return }
                    race.end(.failure(EpisodeFailure(.timedOut, "\(what) took longer than \(limit)")))
                }
                race.begin(waiter, [work, timer])
            }
        } onCancel: {
            race.end(.failure(CancellationError()))
        }
    }

    private final class Race<Value: Sendable>: Sendable {
        private struct State {
            var outcome: Result<Value, any Error>?
            var waiter: CheckedContinuation<Value, any Error>?
            var tasks: [Task<Void, Never>] = []
        }

        private let state = Mutex(State())

        func begin(_ waiter: CheckedContinuation<Value, any Error>, _ tasks: [Task<Void, Never>]) {
            let outcome = state.withLock { state in
                state.waiter = waiter
                state.tasks = tasks
                return state.outcome
            }
            if outcome != nil { settle() }
        }

        /// The first outcome counts.
        /// - Returns: whether this is it.
        @discardableResult
        func end(_ outcome: Result<Value, any Error>) -> Bool {
            let isFirst = state.withLock { state in
                guard state.outcome == nil else { return false }
                state.outcome = outcome
                return true
            }
            if isFirst { settle() }
            return isFirst
        }

        private func settle() {
            let (waiter, outcome, tasks) = state.withLock { state in
                let found = (state.waiter, state.outcome, state.tasks)
                if state.waiter != nil { (state.waiter, state.tasks) = (nil, []) }
                return found
            }
            guard let waiter, let outcome else { return }
            for task in tasks { task.cancel() }
            waiter.resume(with: outcome)
        }
    }
}
