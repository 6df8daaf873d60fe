import RolloutCore
import RolloutEngine
import Synchronization
import Telemetry

/// What samples a batch: a policy worker, or a test's stand-in.
protocol BatchSampler: Sendable {
    /// Samples every request.
    /// - Parameters:
    ///   - onToken: hears of each token; false ends its sample with ``FinishReason/abort``.
    ///   - onSample: gets each sample when it has ended, with the places of its request and of the sample among the request's.
    func sample(
        _ requests: [RolloutRequest], onToken: @escaping @Sendable () -> Bool,
        onSample: @escaping @Sendable (_ request: Int, _ sample: Int, GeneratedSample) -> Void
    ) async throws
}

/// The windows of a batch, one after the other.
struct BatchRun {
    private let input: BatchInput
    private let encoder: BatchEncoder
    private let sampler: any BatchSampler
    private let bad: Set<Int>
    private let windowSamples: Int
    private let meter: BatchMeter
    private let output: BatchOutput
    private var summary = BatchJob.Summary()
    private var next = 0

    /// A line under way.
    private struct Pending {
        let index: Int
        let line: BatchLine
        let promptTokens: Int
        var samples: [GeneratedSample?]
        var missing: Int
    }

    private struct Ended: Sendable {
        let request, sample: Int
        let result: GeneratedSample
    }

    /// - Parameters:
    ///   - bad: lines to leave out.
    ///   - rows: sequences that decode at a time; a window is a few times that, so that few idle at its end.
    init(
        input: BatchInput, encoder: BatchEncoder, sampler: any BatchSampler, output: BatchOutput, bad: Set<Int>,
        rows: Int, observer: BatchJob.Observer, stop: BatchJob.Stop
    ) {
        self.input = input
        self.encoder = encoder
        self.sampler = sampler
        self.output = output
        self.bad = bad
        windowSamples = 4 * rows
        meter = BatchMeter(done: output.doneCount, total: input.count - bad.count, observer: observer, stop: stop)
        summary.lines = input.count
        summary.badLines = bad.count
    }

    mutating func all() async throws -> BatchJob.Summary {
        while !meter.isStopped {
            let (window, requests) = try nextWindow()
            if window.isEmpty { break }
            try await sample(requests, window)
            try output.sync()
        }
        let progress = meter.progress
        summary.done = output.doneCount
        summary.doneNow = progress.doneNow
        summary.tokens = progress.units
        summary.seconds = progress.seconds
        summary.wasStopped = output.doneCount + bad.count < input.count
        return summary
    }

    /// The next lines of which some are not done. A window holds the same lines however often the job was stopped, and one that
    /// was begun is sampled whole again: the last bits of a log-probability may depend on what else is computed with it.
    private mutating func nextWindow() throws -> ([Pending], [RolloutRequest]) {
        while next < input.count {
            var lines: [(index: Int, line: BatchLine)] = [], samples = 0
            while next < input.count, samples < windowSamples {
                defer { next += 1 }
                if bad.contains(next) { continue }
                let line = try input.line(at: next)
                lines.append((next, line))
                samples += line.sampling.n
            }
            if lines.allSatisfy({ output.isDone[$0.index] }) { continue }
            let requests = try lines.map { try encoder.request($0.line, at: $0.index) }
            let window = zip(lines, requests).map { line, request in
                let n = request.sampling.n
                return Pending(
                    index: line.index, line: line.line, promptTokens: request.prompt.count,
                    samples: Array(repeating: nil, count: n), missing: n)
            }
            return (window, requests)
        }
        return ([], [])
    }

    private mutating func sample(_ requests: [RolloutRequest], _ window: [Pending]) async throws {
        var window = window
        let (stream, continuation) = AsyncStream.makeStream(of: Ended.self)
        let (sampler, meter) = (sampler, meter)
        // Tokens are drawn on the sampler's thread while lines are written on this one.
        async let sampling: Void = Self.draw(requests, sampler, meter, continuation)
        do {
            for await ended in stream where ended.result.finishReason != .abort {
                let place = ended.request
                window[place].samples[ended.sample] = ended.result
                window[place].missing -= 1
                guard window[place].missing == 0, !output.isDone[window[place].index] else { continue }
                try write(window[place])
                window[place].samples = []
            }
        } catch {
            // Nothing more can be written: the samples under way end with their next token.
            meter.cancel()
            throw error
        }
        try await sampling
    }

    private static func draw(
        _ requests: [RolloutRequest], _ sampler: any BatchSampler, _ meter: BatchMeter,
        _ continuation: AsyncStream<Ended>.Continuation
    ) async throws {
        defer { continuation.finish() }
        try await sampler.sample(requests) {
            meter.tokenWasDrawn()
        } onSample: {
            continuation.yield(Ended(request: $0, sample: $1, result: $2))
        }
    }

    private mutating func write(_ pending: Pending) throws {
        let samples = pending.samples.compactMap(\.self)
        let record = BatchRecord(
            line: pending.line, index: pending.index, promptTokens: pending.promptTokens, samples: samples)
        try output.add(record.bytes(encoder), at: pending.index)
        summary.samples += samples.count
        summary.promptTokens += pending.promptTokens
        meter.lineWasFinished()
    }
}

/// Counts what is drawn and finished, from any thread.
final class BatchMeter: Sendable {
    private let tokens = Atomic(0)
    private let lines = Atomic(0)
    private let isCancelled = Atomic(false)
    private let doneBefore, total: Int
    private let observer: BatchJob.Observer
    private let stop: BatchJob.Stop
    private let start = ContinuousClock.now
    /// Tokens between two reports: drawing them takes a fraction of what a person sees.
    private static let reportEvery = 64

    init(done: Int, total: Int, observer: BatchJob.Observer, stop: BatchJob.Stop) {
        doneBefore = done
        self.total = total
        self.observer = observer
        self.stop = stop
    }

    /// Whether its sample may go on.
    func tokenWasDrawn() -> Bool {
        let count = tokens.add(1, ordering: .relaxed).newValue
        if count % Self.reportEvery == 0 { observer.progress(progress) }
        return !isStopped
    }

    func lineWasFinished() {
        lines.add(1, ordering: .relaxed)
        observer.progress(progress)
    }

    func cancel() { isCancelled.store(true, ordering: .relaxed) }

    var isStopped: Bool { stop.isRequested || isCancelled.load(ordering: .relaxed) }

    var progress: JobProgress {
        let now = lines.load(ordering: .relaxed)
        return JobProgress(
            done: doneBefore + now, total: total, doneNow: now, units: tokens.load(ordering: .relaxed),
            seconds: (ContinuousClock.now - start) / .seconds(1))
    }
}
