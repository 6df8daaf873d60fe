#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The items that wait for a worker and those that workers have. Workers take items; callers wait for their batch.
actor RewardJobs {
    struct Job: Sendable {
        let batch: Int
        let index: Int
        let item: RewardRequest
        var attempts = 0
        /// How often a worker was found dead before it had begun with this item.
        var returns = 0
    }

    private struct Batch {
        var outcomes: [RewardOutcome]
        var open: Int
        var isCancelled = false
        let caller: CheckedContinuation<[RewardOutcome], Never>
    }

    private struct Running {
        let job: Job
        /// The worker's process group; nil when the process is gone, and its number may be another's.
        var group: pid_t?
    }

    private let retries: Int
    private var batches: [Int: Batch] = [:]
    private var nextBatch = 0
    private var waiting: [Job] = []
    private var head = 0
    private var idle: [Int: CheckedContinuation<Job?, Never>] = [:]
    private var running: [Int: Running] = [:]
    private var workers: Int
    private var starting: Int
    private var startFailure: RewardError?
    private var starter: CheckedContinuation<RewardError?, Never>?
    /// Why nothing is taken any more.
    private var ending: RewardFailure?
    private(set) var replaced = 0

    init(workers: Int, retries: Int) {
        self.workers = workers
        self.retries = retries
        starting = workers
    }

    // MARK: The caller's side

    func score(_ items: [RewardRequest]) async -> [RewardOutcome] {
        if let ending { return items.map { _ in .failed(ending) } }
        if items.isEmpty { return [] }
        let batch = nextBatch
        nextBatch += 1
        return await withTaskCancellationHandler {
            await withCheckedContinuation { caller in
                let unscored = RewardOutcome.failed(RewardFailure(.cancelled, "scoring was cancelled"))
                batches[batch] = Batch(
                    outcomes: items.map { _ in unscored }, open: items.count, caller: caller)
                for (index, item) in items.enumerated() { add(Job(batch: batch, index: index, item: item)) }
            }
        } onCancel: {
            Task { await self.cancel(batch) }
        }
    }

    private func cancel(_ number: Int) {
        guard batches[number] != nil else { return }
        batches[number]!.isCancelled = true
        let dropped = waiting[head...].filter { $0.batch == number }
        waiting = waiting[head...].filter { $0.batch != number }
        head = 0
        for entry in running.values where entry.job.batch == number {
            if let group = entry.group { kill(-group, SIGKILL) }
        }
        for job in dropped { settle(job, .failed(RewardFailure(.cancelled, "scoring was cancelled"))) }
    }

    private func settle(_ job: Job, _ outcome: RewardOutcome) {
        guard var batch = batches[job.batch] else { return }
        if !batch.isCancelled { batch.outcomes[job.index] = outcome }
        batch.open -= 1
        batches[job.batch] = batch
        guard batch.open == 0 else { return }
        batches[job.batch] = nil
        batch.caller.resume(returning: batch.outcomes)
    }

    private func add(_ job: Job) {
        if let (slot, worker) = idle.popFirst() {
            hand(job, to: slot)
            worker.resume(returning: job)
        } else {
            waiting.append(job)
        }
    }

    private func hand(_ job: Job, to slot: Int) { running[slot] = Running(job: job, group: groups[slot]) }

    // MARK: The workers' side

    private var groups: [Int: pid_t] = [:]

    /// Waits until all workers are up, or one says why it cannot be.
    func started() async -> RewardError? {
        if starting == 0 || startFailure != nil { return startFailure }
        return await withCheckedContinuation { starter = $0 }
    }

    /// A worker is up, or, with an error, is not.
    func start(of slot: Int, failed error: RewardError?) {
        guard starting > 0 else { return }
        starting -= 1
        startFailure = startFailure ?? error
        guard starting == 0 || startFailure != nil else { return }
        starter?.resume(returning: startFailure)
        starter = nil
    }

    /// The next item; nil when there is no more work, now and later.
    func take(slot: Int, group: pid_t) async -> Job? {
        groups[slot] = group
        return await withTaskCancellationHandler {
            await withCheckedContinuation { worker in
                if ending != nil || Task.isCancelled {
                    worker.resume(returning: nil)
                } else if head < waiting.count {
                    let job = waiting[head]
                    head += 1
                    if head > 1024, head > waiting.count / 2 {
                        waiting.removeFirst(head)
                        head = 0
                    }
                    hand(job, to: slot)
                    worker.resume(returning: job)
                } else {
                    idle[slot] = worker
                }
            }
        } onCancel: {
            Task { await self.stopWaiting(slot) }
        }
    }

    private func stopWaiting(_ slot: Int) { idle.removeValue(forKey: slot)?.resume(returning: nil) }

    /// The worker's process is gone, or about to be: nothing may be sent to its group from now on.
    func gone(slot: Int) {
        groups[slot] = nil
        running[slot]?.group = nil
    }

    func finish(slot: Int, _ job: Job, _ outcome: RewardOutcome) {
        running[slot] = nil
        let isRetried = outcome.failure.map { $0.kind == .workerDied || $0.kind == .timedOut } ?? false
        if isRetried, job.attempts < retries, ending == nil, batches[job.batch]?.isCancelled == false {
            var again = job
            again.attempts += 1
            add(again)
        } else if let ending, outcome.failure != nil {
            settle(job, .failed(ending))
        } else {
            settle(job, outcome)
        }
    }

    /// Gives back an item that the worker had not begun with. An idle worker's death is not the item's doing.
    func giveBack(slot: Int, _ job: Job) {
        guard job.returns < 3, ending == nil, batches[job.batch]?.isCancelled == false else {
            return finish(slot: slot, job, .failed(RewardFailure(.workerDied, "workers die before they begin with it")))
        }
        running[slot] = nil
        var again = job
        again.returns += 1
        add(again)
    }

    func countReplacement() { replaced += 1 }

    /// A worker gave up; when it was the last, nothing can be scored any more.
    func retire(slot: Int, because error: RewardError) {
        workers -= 1
        if workers == 0 { close(RewardFailure(.workerDied, "no worker is left: \(error.message)")) }
    }

    /// Fails all items that wait and those to come.
    func close(_ failure: RewardFailure) {
        guard ending == nil else { return }
        ending = failure
        for job in waiting[head...] { settle(job, .failed(failure)) }
        waiting = []
        head = 0
        for worker in idle.values { worker.resume(returning: nil) }
        idle = [:]
    }
}
