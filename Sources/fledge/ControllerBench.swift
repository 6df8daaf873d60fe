import ArgumentParser
import Cluster
import Foundation
import Telemetry

struct ControllerBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "controller",
        abstract: "What the controller costs: the calls of a step to workers that compute nothing.",
        discussion: """
            Starts simulated workers on this host, each with a server, connections and heartbeats of its own, and sends a batch out and
            back. Times are of the fastest repeat.

            EXAMPLES
              fledge bench controller
              fledge bench controller --workers 1024 --processes 8
            """)

    @Option(help: "Simulated workers.")
    var workers = 8

    @Option(help: "Processes that they share; by default one each, at most 8.")
    var processes: Int?

    @Option(help: "Answers of a batch.")
    var samples = 1024

    @Option(help: "Tokens of an answer.")
    var tokens = 2048

    @Option(help: "Measured steps.")
    var repeats = 3

    @Option(help: "Seconds of the step that the overhead is a share of.")
    var stepSeconds = 30.0

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: .hidden)
    var simulate: String?

    func validate() throws {
        guard (1...65_536).contains(workers), (1...1024).contains(processes ?? 1), samples > 0, tokens > 0, repeats > 0,
            stepSeconds > 0
        else {
            throw ValidationError(
                "--workers, --processes, --samples, --tokens, --repeats and --step-seconds must be positive")
        }
    }

    func run() async throws {
        try await Failures.reported {
            let variables = ProcessInfo.processInfo.environment
            if let simulate, let place = try WorkerPlace.given(variables) {
                RankEnvironment.dieWithStarter(variables)
                let numbers = simulate.split(separator: ",").compactMap { Int($0) }
                guard numbers.count == 2 else { throw ValidationError("--simulate '\(simulate)'") }
                return try await ControllerBenchmark.serve(first: numbers[0], count: numbers[1], place: place)
            }
            let benchmark = ControllerBenchmark(
                workers: workers, processes: processes ?? min(8, workers), samples: samples, tokens: tokens,
                repeats: repeats)
            let report = try await benchmark.run(executable: RankedCommand.executable, environment: variables) {
                ["bench", "controller", "--simulate", "\($0),\($1)"]
            }
            print(report, benchmark)
        }
    }

    private func print(_ report: ControllerBenchmark.Report, _ benchmark: ControllerBenchmark) {
        func milliseconds(_ seconds: Double) -> Double { BenchReport.rounded(seconds * 1e3, 100) }
        let overhead = report.collect + report.dispatch
        var entries: [(String, BenchReport.Entry)] = [
            ("workers", .int(benchmark.workers)), ("processes", .int(benchmark.processes)),
            ("samples", .int(samples)), ("tokens_per_sample", .int(tokens)),
            ("start_seconds", .number(BenchReport.rounded(report.start, 1000))),
            ("empty_call_ms", .number(milliseconds(report.empty))),
            ("collect_ms", .number(milliseconds(report.collect))),
            ("collected_bytes", .int(report.collectedBytes)),
            ("dispatch_ms", .number(milliseconds(report.dispatch))),
            ("dispatched_bytes", .int(report.dispatchedBytes)),
        ]
        if report.broadcast.isFinite { entries.append(("broadcast_ms", .number(milliseconds(report.broadcast)))) }
        entries += [
            ("overhead_ms_per_step", .number(milliseconds(overhead))),
            ("step_seconds", .number(stepSeconds)),
            ("overhead_percent", .number(BenchReport.rounded(overhead / stepSeconds * 100, 1000))),
            ("controller_cpu", .number(BenchReport.rounded(report.cpu, 1000))),
            ("controller_cpu_heartbeats_only", .number(BenchReport.rounded(report.idleCPU, 1000))),
            ("controller_resident_mib", .number(BenchReport.rounded(Double(report.residentBytes) / 0x1p20, 10))),
        ]
        if json { return BenchReport.print(entries) }
        Console.say(
            """
            \(benchmark.workers) simulated workers in \(benchmark.processes) processes, \(samples) answers of \(tokens) tokens
              started and connected in \(BenchReport.rounded(report.start, 100)) s; a call with nothing in it \
            \(milliseconds(report.empty)) ms
              collect \(milliseconds(report.collect)) ms, dispatch \(milliseconds(report.dispatch)) ms: \
            \(BenchReport.rounded(overhead / stepSeconds * 100, 1000)) % of a step of \(stepSeconds) s
              controller: \(BenchReport.rounded(report.cpu, 100)) cores in calls, \(BenchReport.rounded(report.idleCPU, 1000)) with \
            heartbeats only, \(report.residentBytes >> 20) MiB
            """)
    }
}
