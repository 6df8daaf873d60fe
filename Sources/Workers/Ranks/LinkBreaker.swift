import Foundation
import Synchronization
import TensorCore

/// Ends a rank's part of a link to ranks that are lost, while its thread waits in it.
final class LinkBreaker: Sendable {
    private struct State {
        /// The last link that was broken, by number.
        var broken = -1
        var held: (number: Int, ender: ProcessGroup.Ender)?
    }
    private let state = Mutex(State())

    /// A link was made, or is about to be made.
    /// - Throws: ``WorkerError`` where it is broken already.
    func hold(_ number: Int, _ group: ProcessGroup) throws(WorkerError) {
        let ender = group.ender
        let isBroken = state.withLock { state in
            if number > state.broken { state.held = (number, ender) }
            return number <= state.broken
        }
        if isBroken { throw WorkerError(.ranks, "the link to the samplers was ended before it was made") }
    }

    func release() { state.withLock { $0.held = nil } }

    /// Breaks that link and those before it, now or when they are made.
    func end(_ number: Int) {
        let ender = state.withLock { state in
            state.broken = max(state.broken, number)
            guard let held = state.held, held.number <= number else { return nil as ProcessGroup.Ender? }
            state.held = nil
            return held.ender
        }
        // NCCL may wait for its kernels to end; nobody waits for it here.
        if let ender { Thread.detachNewThread { try? ender.abort() } }
    }
}
