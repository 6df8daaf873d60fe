import Dispatch
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Work spread over all cores.
public enum Parallel {
    /// `transform` of each of the numbers `0..<count`, in their order. Blocks the calling thread.
    /// - Parameter grain: how many numbers a thread takes at a time.
    /// - Throws: what `transform` threw for the lowest number.
    public static func map<Value: Sendable>(
        _ count: Int, grain: Int = 64, _ transform: @Sendable (Int) throws -> Value
    ) throws -> [Value] {
        let chunkCount = (count + grain - 1) / grain
        let state = Mutex(MapState<Value>(chunks: Array(repeating: nil, count: chunkCount)))
        let next = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: min(chunkCount, coreCount)) { _ in
            while true {
                // Chunks go out in order: those before a failure are all taken, those behind it are not needed.
                let chunk = next.add(1, ordering: .relaxed).oldValue
                if chunk >= chunkCount || state.withLock({ $0.failure != nil }) { return }
                var values: [Value] = []
                values.reserveCapacity(grain)
                for index in chunk * grain..<min(count, (chunk + 1) * grain) {
                    do {
                        values.append(try transform(index))
                    } catch {
                        state.withLock { if index < $0.failure?.index ?? .max { $0.failure = (index, error) } }
                        return
                    }
                }
                state.withLock { $0.chunks[chunk] = values }
            }
        }
        let done = state.withLock { $0 }
        if let failure = done.failure { throw failure.error }
        return done.chunks.flatMap { $0 ?? [] }
    }

    private static var coreCount: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
}

private struct MapState<Value> {
    var chunks: [[Value]?]
    var failure: (index: Int, error: any Error)?
}
