import Synchronization

/// Places for so many episodes at a time, whichever prompts they are of; who comes first has the next one.
final class EpisodePlaces: Sendable {
    private struct State {
        var free: Int
        var next = 0
        /// In the order of their coming.
        var waiting: [(number: Int, caller: CheckedContinuation<Void, any Error>)] = []
        /// Given up before they stood in line.
        var gone: Set<Int> = []
    }

    private let state: Mutex<State>

    init(_ count: Int) { state = Mutex(State(free: count)) }

    /// Returns when there is a place, which is to be given back.
    /// - Throws: `CancellationError`; then there is nothing to give back.
    func take() async throws {
        let number = state.withLock { state in
            state.next += 1
            return state.next
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { caller in
                let outcome: Result<Void, any Error>? = state.withLock { state in
                    if state.gone.remove(number) != nil { return .failure(CancellationError()) }
                    guard state.free == 0 else {
                        state.free -= 1
                        return .success(())
                    }
                    state.waiting.append((number, caller))
                    return nil
                }
                if let outcome { caller.resume(with: outcome) }
            }
        } onCancel: {
            let caller = state.withLock { state in
                guard let index = state.waiting.firstIndex(where: { $0.number == number }) else {
                    state.gone.insert(number)
                    return nil as CheckedContinuation<Void, any Error>?
                }
                return state.waiting.remove(at: index).caller
            }
            caller?.resume(throwing: CancellationError())
        }
        // Had it got its place before it was cancelled.
        state.withLock { _ = $0.gone.remove(number) }
    }

    func giveBack() {
        let caller = state.withLock { state in
            guard !state.waiting.isEmpty else {
                state.free += 1
                return nil as CheckedContinuation<Void, any Error>?
            }
            return state.waiting.removeFirst().caller
        }
        caller?.resume()
    }
}
