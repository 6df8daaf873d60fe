import FoundationEssentials
import OrderedCollections
import Subprocess
import SystemPackage

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// One place in the pool: runs a process, and another when that one ends, until there is no more work.
struct PythonWorker: Sendable {
    let slot: Int
    let configuration: PythonRewardConfiguration
    let jobs: RewardJobs

    /// How often in a row a replacement may fail to come up.
    private static let maximumStartFailures = 3

    /// How a process ended, and the item that it had.
    private enum Ending: Sendable {
        case notStarted(String)
        case closed
        /// `begun` tells whether it had confirmed the item.
        case died(RewardJobs.Job, begun: Bool)
        case timedOut(RewardJobs.Job)
        case broken(RewardJobs.Job)
    }

    func serve() async {
        var failures = 0
        while !Task.isCancelled {
            let (ending, note) = await live()
            switch ending {
            case .closed: return
            case .notStarted(let message):
                failures += 1
                let error = RewardError(.badRewardFile, message)
                await jobs.start(of: slot, failed: error)
                if failures == Self.maximumStartFailures { return await jobs.retire(slot: slot, because: error) }
                continue
            case .died(let job, begun: false): await jobs.giveBack(slot: slot, job)
            case .died(let job, begun: true): await fail(job, .workerDied, "the worker \(note)")
            case .timedOut(let job):
                await fail(job, .timedOut, "no score within \(configuration.deadline)\(note)")
            case .broken(let job): await fail(job, .garbage, "the worker's replies were disturbed\(note)")
            }
            failures = 0
            await jobs.countReplacement()
        }
        await jobs.start(of: slot, failed: RewardError(.badRewardFile, "the start was cancelled"))
    }

    private func fail(_ job: RewardJobs.Job, _ kind: RewardFailure.Kind, _ message: String) async {
        await jobs.finish(slot: slot, job, .failed(RewardFailure(kind, message)))
    }

    /// The life of one process.
    private func live() async -> (Ending, note: String) {
        let tail = StandardErrorTail()
        do {
            let result = try await run(
                executable, arguments: arguments, environment: environment, platformOptions: options,
                input: .inputWriter, output: .sequence, error: .sequence
            ) { execution in
                let group = execution.processIdentifier.value
                let errors = execution.standardError
                return await withTaskGroup(of: Void.self) { tasks in
                    tasks.addTask {
                        // The end of the process ends this, also when the read fails.
                        try? await { for try await chunk in errors { chunk.withUnsafeBytes { tail.append($0) } } }()
                    }
                    let ending = await converse(
                        execution.standardInputWriter, ReplyReader(execution.standardOutput), group, tail)
                    await jobs.gone(slot: slot)
                    // The process is not reaped before this closure returns, so the number is still its group's.
                    kill(-group, SIGKILL)
                    await tasks.waitForAll()
                    return ending
                }
            }
            switch result.closureResult {
            case .died: return (result.closureResult, describe(result.terminationStatus) + tail.note)
            case .notStarted(let message) where message.isEmpty:
                return (.notStarted("the worker \(describe(result.terminationStatus))\(tail.note)"), "")
            default: return (result.closureResult, tail.note)
            }
        } catch {
            return (.notStarted("cannot run '\(configuration.interpreter)': \(error)"), "")
        }
    }

    private func converse(
        _ input: StandardInputWriter, _ replies: consuming ReplyReader, _ group: pid_t, _ tail: StandardErrorTail
    ) async -> Ending {
        var replies = replies
        let (hello, isLate) = await within(configuration.startDeadline, killing: group) { await replies.next() }
        if isLate {
            return .notStarted("the reward file did not load within \(configuration.startDeadline)\(tail.note)")
        }
        switch hello {
        case .reply(let reply) where reply.kind == .ready: await jobs.start(of: slot, failed: nil)
        case .reply(let reply): return .notStarted(reply.message ?? "")
        case .broken: return .notStarted("the reward file disturbs its worker's replies")
        case .end: return .notStarted("")
        }
        while let job = await jobs.take(slot: slot, group: group) {
            tail.clear()
            var hasBegun = false
            let (next, isLate) = await within(configuration.deadline, killing: group) {
                // A worker that is dead shows it by the end of its replies.
                guard let frame = try? WorkerRequest(job.item).frame(), (try? await input.write(frame)) == frame.count
                else { return ReplyReader.Next.end }
                let next = await replies.next()
                guard case .reply(let reply) = next, reply.kind == .begun else { return next }
                hasBegun = true
                return await replies.next()
            }
            if isLate { return .timedOut(job) }
            switch next {
            case .end: return .died(job, begun: hasBegun)
            case .broken: return .broken(job)
            case .reply(let reply):
                guard let outcome = reply.outcome else { return .broken(job) }
                await jobs.finish(slot: slot, job, outcome)
            }
        }
        return .closed
    }

    /// Runs the body; when it takes longer, ends the process group, which ends the body.
    private func within<Result>(
        _ time: Duration, killing group: pid_t, _ body: () async -> Result
    ) async -> (Result, isLate: Bool) {
        await withTaskGroup(of: Bool.self) { tasks in
            tasks.addTask {
                do {
                    try await Task.sleep(for: time)
                } catch {
                    return false
                }
                kill(-group, SIGKILL)
                return true
            }
            let result = await body()
            tasks.cancelAll()
            return (result, await tasks.next() ?? false)
        }
    }

    private func describe(_ status: TerminationStatus) -> String {
        switch status {
        case .exited(let code): "ended with exit code \(code)"
        case .signaled(SIGXCPU): "used more than \(configuration.cpuSeconds) s of processor time"
        case .signaled(SIGKILL): "was killed: by the system (out of memory?), or here because it closed its replies"
        case .signaled(let signal): "ended by signal \(signal)"
        }
    }
}

// MARK: - How a worker is started

extension PythonWorker {
    private var executable: Executable { .path(FilePath(configuration.interpreter)) }

    private var arguments: Arguments {
        Arguments([
            "-u", "-X", "utf8", "-c", PythonDriver.source, String(getpid()), configuration.file,
            configuration.function, String(configuration.memoryLimit ?? 0), String(configuration.cpuSeconds),
            String(configuration.openFiles),
        ])
    }

    private var environment: Environment {
        let passed = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"]
        // Sets and dicts of strings iterate in the same order in every run, and each worker keeps to its own core.
        var values: [Environment.Key: String] = ["PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"]
        let own = ProcessInfo.processInfo.environment
        for name in passed {
            if let value = own[name] { values[.init(stringLiteral: name)] = value }
        }
        for (name, value) in configuration.environment { values[.init(stringLiteral: name)] = value }
        return .custom(values)
    }

    private var options: PlatformOptions {
        var options = PlatformOptions()
        // A group of its own: the terminal's Ctrl-C does not reach it, and all that it starts goes with it.
        options.processGroupID = 0
        options.teardownSequence = [.send(signal: .kill, toProcessGroup: true, allowedDurationToNextStep: .seconds(1))]
        return options
    }
}

extension WorkerReply {
    /// nil for a reply that is no outcome.
    fileprivate var outcome: RewardOutcome? {
        switch kind {
        case .scored:
            guard let score else { return nil }
            return .checked(
                score, details: .init(details?.map { ($0.name, $0.value) } ?? [], uniquingKeysWith: { $1 }))
        case .raised: return .failed(RewardFailure(.raised, message ?? ""))
        case .garbage: return .failed(RewardFailure(.garbage, message ?? ""))
        case .nonFinite: return .failed(RewardFailure(.nonFinite, message ?? ""))
        case .ready, .begun, .loadFailed: return nil
        }
    }
}
