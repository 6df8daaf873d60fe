import Dispatch
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// Runs an actor's jobs on one thread of its own. libtorch's grad mode, current device and stream belong to a thread, and so
/// does OpenMP's team of helpers: tensor work must never hop.
public final class TensorExecutor: SerialExecutor {
    private let jobs = Mutex<[UnownedJob]>([])
    private let available = DispatchSemaphore(value: 0)

    public init() {
        // The thread lives as long as the process: tensors made on it may be freed at any time.
        let context = Unmanaged.passRetained(self).toOpaque()
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { context in
                Unmanaged<TensorExecutor>.fromOpaque(context!).takeUnretainedValue().run()
            }, context)
        precondition(status == 0, "cannot start the tensor thread: error \(status)")
        pthread_detach(thread)
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
        available.signal()
    }

    private func run() -> Never {
        let executor = asUnownedSerialExecutor()
        while true {
            available.wait()
            let job = jobs.withLock { $0.removeFirst() }
            job.runSynchronously(on: executor)
        }
    }
}
