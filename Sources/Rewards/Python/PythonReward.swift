import FoundationEssentials
import PythonProcesses

/// A reward that a Python file defines, with verl's signature:
///
///     def compute_score(data_source, solution_str, ground_truth, extra_info): ...
///
/// It returns a number, or a dict with `score` (its other numbers become details, what is no number is left out), or a
/// list or tuple whose first element is the score. It runs in worker processes that live as long as this object; one
/// that dies or hangs is replaced, and only its item fails. This guards against accidents, not against malice: the file
/// runs with the user's rights.
public final class PythonReward: Reward {
    public let configuration: PythonRewardConfiguration
    private let jobs: RewardJobs
    private let workers: [Task<Void, Never>]

    /// Starts the workers and waits until all have loaded the file.
    ///
    /// From then on this process ignores SIGPIPE.
    /// - Throws: `RewardError.badRewardFile` with Python's own message, `.noInterpreter`, `.badSetting`;
    ///   `CancellationError`.
    public init(_ configuration: PythonRewardConfiguration) async throws {
        try configuration.check()
        var configuration = configuration
        configuration.file = URL(filePath: configuration.file).standardizedFileURL.path
        guard FileManager.default.isReadableFile(atPath: configuration.file) else {
            throw RewardError(.badRewardFile, "the reward file '\(configuration.file)' is missing or not readable")
        }
        configuration.interpreter = try Self.find(configuration.interpreter)
        let jobs = RewardJobs(workers: configuration.workers, retries: configuration.retries)
        let settled = configuration
        self.configuration = settled
        self.jobs = jobs
        workers = (0..<configuration.workers).map { slot in
            Task { await PythonWorker(slot: slot, configuration: settled, jobs: jobs).serve() }
        }
        let failure = await withTaskCancellationHandler {
            await jobs.started()
        } onCancel: { [workers] in
            for worker in workers { worker.cancel() }
        }
        if let failure {
            await shutdown()
            try Task.checkCancellation()
            throw RewardError(failure.code, "the reward file '\(settled.file)' does not load: \(failure.message)")
        }
    }

    deinit {
        for worker in workers { worker.cancel() }
    }

    /// A cancelled caller gets `.cancelled` for what was not scored, once the workers that were busy with it are dead.
    public func score(_ items: [RewardRequest]) async -> [RewardOutcome] { await jobs.score(items) }

    /// Workers that died or hung and were replaced.
    public var replacedWorkers: Int {
        get async { await jobs.replaced }
    }

    /// Ends all workers, and waits until they are gone. What is not scored by then is `.cancelled`, as all later items.
    public func shutdown() async {
        await jobs.close(RewardFailure(.cancelled, "the reward was shut down"))
        for worker in workers { worker.cancel() }
        for worker in workers { await worker.value }
    }

    private static func find(_ interpreter: String) throws -> String {
        guard let found = PythonProcess.find(interpreter) else {
            throw RewardError(
                .noInterpreter,
                "Python rewards need '\(interpreter)', which is not in PATH or not executable; install Python 3 or name "
                    + "another interpreter")
        }
        return found
    }
}
