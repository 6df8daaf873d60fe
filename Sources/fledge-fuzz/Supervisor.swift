import Foundation
import Fuzzing

/// Runs workers one after the other, watches the clock for each input, and keeps what kills them.
struct Supervisor {
    /// What every worker is told on its command line.
    struct Settings {
        var target: String
        var seed: UInt64
        var corpus: [String]
        var seconds: Double
        /// Stop after so many inputs; nil for as many as the time allows.
        var count: Int?
        /// Seconds that one input may take.
        var deadline: Double
        var memoryMB: Int
        var stackKB: Int
        var output: String
        var largestFile: Int
    }

    /// Past this many, something is so wrong that more of it says nothing new.
    static let failureLimit = 200

    let settings: Settings
    let run: FuzzRun
    private let environment = ProcessInfo.processInfo.environment
    private var workerOutput: String { settings.output + "/worker.log" }

    init(_ settings: Settings, _ run: FuzzRun) throws {
        self.settings = settings
        self.run = run
        try FileManager.default.createDirectory(atPath: settings.output, withIntermediateDirectories: true)
        // Children take the limit over: each has a stack of its own from the start.
        try System.limitStack(settings.stackKB << 10)
    }

    func fuzz(say: (String) -> Void) throws -> Summary {
        let progress = try Progress(path: settings.output + "/progress", isNew: true)
        let start = System.now
        func elapsed() -> Double { Double(System.now - start) / 1e9 }
        var failures: [Summary.Failure] = []
        var next = 0
        while elapsed() < settings.seconds, next < settings.count ?? .max, failures.count < Self.failureLimit {
            let remaining = settings.seconds - elapsed()
            guard let (number, kind) = try watch(progress, from: next, to: settings.count, seconds: remaining) else {
                break
            }
            var failure = Summary.Failure(kind: kind, input: number, file: try save(number, kind))
            progress.clear()
            failure.message = lastWords()
            (failure.isReproducible, failure.frames) = try reproduce(number, kind)
            say("\(kind) at input \(number): \(failure.file) \(failure.message)")
            failures.append(failure)
            next = number + 1
        }
        let slowest = progress.slowest
        let peak = progress.peak
        return Summary(
            target: settings.target, seed: settings.seed, corpusInputs: run.corpus.inputs.count,
            seconds: elapsed(), executions: progress.executions, accepted: progress.accepted,
            codes: progress.codeCounts, baseMB: progress.baseKiB / 1024, peakMB: peak.kibibytes / 1024,
            peakInput: try save(peak.number, "largest-memory"), slowestMilliseconds: (slowest.seconds * 1000).rounded(),
            slowestInput: try save(slowest.number, "slowest"), failures: failures)
    }

    /// Lets one worker run until it is done (nil) or an input ends it.
    private func watch(
        _ progress: borrowing Progress, from first: Int, to end: Int?, seconds: Double
    ) throws -> (number: Int, kind: String)? {
        let process = try spawn("progress", from: first, to: end, seconds: seconds, backtrace: "enable=no")
        while true {
            if let ending = try System.ending(of: process) {
                if ending == .exited(0) { return nil }
                guard let running = progress.running else {
                    throw Failed("the worker ended (\(ending)) with no input running: \(lastWords())")
                }
                switch ending {
                case .exited(Worker.brokenProperty): return (running.number, "broken-property")
                case .exited(let code): return (running.number, "exit-\(code)")
                case .signalled(let signal): return (running.number, "crash-signal-\(signal)")
                }
            }
            if let running = progress.running, running.seconds > settings.deadline {
                try System.kill(process)
                return (running.number, "hang")
            }
            System.pause(milliseconds: 20)
        }
    }

    struct Failed: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    private func spawn(
        _ progress: String, from first: Int, to end: Int?, seconds: Double, backtrace: String
    ) throws -> pid_t {
        let arguments = [
            settings.target, "--worker", "\(settings.output)/\(progress)", "--first", "\(first)", "--seed",
            "\(settings.seed)", "--seconds", "\(seconds)", "--memory-mb", "\(settings.memoryMB)", "--largest-file",
            "\(settings.largestFile)",
        ]
        return try System.spawn(
            arguments + (end.map { ["--count", "\($0)"] } ?? []) + settings.corpus.flatMap { ["--corpus", $0] },
            environment: environment.merging(["SWIFT_BACKTRACE": backtrace]) { _, new in new }, output: workerOutput)
    }

    private func save(_ number: Int, _ kind: String) throws -> String {
        let path = "\(settings.output)/\(kind)-seed\(settings.seed)-\(number)"
        try FileBytes.write(run.input(number), to: path)
        return path
    }

    /// Runs an input again in a worker of its own: does it fail by itself, and where?
    private func reproduce(_ number: Int, _ kind: String) throws -> (Bool, [String]) {
        let progress = try Progress(path: settings.output + "/progress.again", isNew: true)
        let process = try spawn(
            "progress.again", from: number, to: number + 1, seconds: 1e6,
            backtrace: "enable=yes,color=no,threads=crashed,images=none,registers=none,limit=24,interactive=no")
        while true {
            if let ending = try System.ending(of: process) { return (ending != .exited(0), frames()) }
            if let running = progress.running, running.seconds > settings.deadline * 2 {
                try System.kill(process)
                return (kind == "hang", [])
            }
            System.pause(milliseconds: 20)
        }
    }

    private func log() -> [Substring] {
        let bytes = (try? FileBytes.read(workerOutput)) ?? []
        return String(decoding: bytes.suffix(1 << 16), as: UTF8.self).split(separator: "\n")
    }

    private func lastWords() -> String {
        let line = log().last { $0.hasPrefix("Fatal error:") || $0.hasPrefix("broken:") } ?? log().first
        return String((line ?? "").prefix(400))
    }

    /// The named places of a crash, innermost first.
    private func frames() -> [String] {
        Array(
            log().filter { $0.contains(" in ") && $0.contains(" at ") && $0.contains(".swift") }.prefix(8).map(
                String.init))
    }
}
