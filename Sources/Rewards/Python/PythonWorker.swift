import OrderedCollections
import PythonProcesses

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
            let (ending, status) = try await process.run(tail: tail) { channel in
                let ending = await converse(channel, tail)
                await jobs.gone(slot: slot)
                return ending
            }
            switch ending {
            case .died: return (ending, describe(status) + tail.note)
            case .notStarted(let message) where message.isEmpty:
                return (.notStarted("the worker \(describe(status))\(tail.note)"), "")
            default: return (ending, tail.note)
            }
        } catch {
            return (.notStarted("cannot run '\(configuration.interpreter)': \(error)"), "")
        }
    }

    private func converse(_ channel: consuming PythonProcess.Channel, _ tail: StandardErrorTail) async -> Ending {
        let group = channel.group, writer = channel.writer
        var replies = channel.reader
        let (hello, isLate) = await PythonProcess.within(configuration.startDeadline, killing: group) {
            await replies.nextReply()
        }
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
            let (next, isLate) = await PythonProcess.within(configuration.deadline, killing: group) {
                // A worker that is dead shows it by the end of its replies.
                guard let frame = try? WorkerRequest(job.item).frame(), await writer.write(frame) else {
                    return FrameReader.NextReply.end
                }
                let next = await replies.nextReply()
                guard case .reply(let reply) = next, reply.kind == .begun else { return next }
                hasBegun = true
                return await replies.nextReply()
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

    private func describe(_ status: PythonProcess.Ending) -> String {
        status.isProcessorTime ? "used more than \(configuration.cpuSeconds) s of processor time" : "\(status)"
    }

    private var process: PythonProcess {
        var process = PythonProcess(interpreter: configuration.interpreter, program: PythonDriver.source)
        process.arguments = [
            configuration.file, configuration.function, String(configuration.memoryLimit ?? 0),
            String(configuration.cpuSeconds), String(configuration.openFiles),
        ]
        process.environment = configuration.environment
        return process
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
