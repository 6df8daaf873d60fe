import Models
import RolloutCore
import RolloutEngine
import Synchronization
public import Telemetry

/// Samples every line of a file into another, and goes on where an earlier process stopped.
///
/// A line's samples depend on the line, its place and the settings alone. Lines are taken in windows, so that memory does not
/// grow with the input.
public struct BatchJob: Sendable {
    public var settings: BatchSettings
    public var plan: PolicyWorker.Plan

    /// What the job says while it runs.
    public struct Observer: Sendable {
        /// A sentence for the user.
        public var note: @Sendable (String) -> Void
        /// Several times a second.
        public var progress: @Sendable (JobProgress) -> Void
        public init(
            note: @escaping @Sendable (String) -> Void = { _ in },
            progress: @escaping @Sendable (JobProgress) -> Void = { _ in }
        ) {
            self.note = note
            self.progress = progress
        }
    }

    /// Asks a job to stop; what is finished stays, and the same job goes on from there.
    public final class Stop: Sendable {
        private let flag = Atomic(false)
        public init() {}
        public func request() { flag.store(true, ordering: .relaxed) }
        public var isRequested: Bool { flag.load(ordering: .relaxed) }
    }

    public struct Summary: Sendable, Hashable {
        /// Lines of the input; those that cannot be used; those in the output now; those that this process did.
        public var lines = 0, badLines = 0, done = 0, doneNow = 0
        /// Of this process.
        public var samples = 0, promptTokens = 0, tokens = 0
        /// From the first request to the last sample.
        public var seconds = 0.0
        public var wasStopped = false
    }

    public init(settings: BatchSettings, plan: PolicyWorker.Plan) {
        self.settings = settings
        self.plan = plan
    }

    /// - Throws: ``BatchError``, `DatasetError`, `TelemetryError`, and what loading the model throws. What the output holds by
    ///   then is whole lines.
    public func run(_ observer: Observer = Observer(), stop: Stop = Stop()) async throws -> Summary {
        try settings.sampling.checkOptions()
        let input = try BatchInput(settings)
        let survey = try input.survey()
        let manifest = try BatchManifest(
            settings, lines: input.count, fingerprint: survey.fingerprint, plan: plan)
        let output = try BatchOutput(settings, manifest)
        tell(observer, input, survey, output)
        var bad = survey.bad
        if output.doneCount + bad.count < input.count {
            let worker = PolicyWorker(plan)
            let encoder = BatchEncoder(text: try await worker.load(), shape: try await worker.shape(), input: input)
            // Lengths and ids, which only the tokenizer and the model can judge.
            let fitting = try input.survey { line, index in _ = try encoder.request(line, at: index) }
            for problem in fitting.problems where !survey.problems.contains(problem) {
                observer.note("bad line: \(problem)")
            }
            bad = fitting.bad
            try output.skip(bad)
            var run = BatchRun(
                input: input, encoder: encoder, sampler: worker, output: output, bad: bad, rows: plan.engine.maxRows,
                observer: observer, stop: stop)
            do { return try await run.all() } catch let error as TelemetryError {
                throw BatchError(
                    .writing,
                    "\(error); \(output.doneCount) of \(input.count) lines are whole in '\(settings.output)', and the same "
                        + "command goes on from there")
            }
        }
        try output.skip(bad)
        return Summary(lines: input.count, badLines: bad.count, done: output.doneCount)
    }

    private func tell(_ observer: Observer, _ input: BatchInput, _ survey: BatchInput.Survey, _ output: BatchOutput) {
        for problem in survey.problems { observer.note("bad line: \(problem)") }
        if !survey.carried.isEmpty {
            let names = survey.carried.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
            let shown = names.prefix(20).map { $0.value == input.count ? $0.key : "\($0.key) (\($0.value))" }
            observer.note("carried along: \(shown.joined(separator: ", "))\(names.count > 20 ? ", …" : "")")
        }
        if output.tornBytes > 0 { observer.note("cut a torn last line of \(output.tornBytes) bytes off the output") }
        if output.doneCount > 0 {
            observer.note("going on: \(output.doneCount) of \(input.count) lines are done")
        }
    }
}

extension BatchSampling {
    /// - Throws: ``BatchError`` `badSetting` that names the option.
    func checkOptions() throws(BatchError) {
        do throws(BatchProblem) {
            try check { "--" + $0.rawValue.replacing("_", with: "-") }
        } catch {
            throw BatchError(.badSetting, "\(error.key ?? "") \(error.message); \(error.remedy)")
        }
    }
}
