import Flow
import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// What a controller costs: the calls of a step over real transport to workers that compute nothing. Each worker has a server, a
/// port, connections and heartbeats of its own; several may share a process.
public struct ControllerBenchmark: Sendable {
    public var workers: Int
    public var processes: Int
    /// Answers of a batch, eight to a prompt.
    public var samples: Int
    public var tokens: Int
    public var repeats: Int

    public init(workers: Int, processes: Int, samples: Int, tokens: Int, repeats: Int) {
        self.workers = workers
        self.processes = min(processes, workers)
        self.samples = samples
        self.tokens = tokens
        self.repeats = repeats
    }

    /// Times are of the fastest repeat, in seconds.
    public struct Report: Sendable {
        /// From the first process's start until every worker was connected and had answered.
        public var start = Double.infinity
        /// A call with nothing in it on all workers.
        public var empty = Double.infinity
        /// Prompts out and answers back, put together.
        public var collect = Double.infinity
        /// The batch shared out by work, and the workers' word that they have it.
        public var dispatch = Double.infinity
        /// The batch to each worker whole, as ranks that share work out among themselves get it.
        public var broadcast = Double.infinity
        public var collectedBytes = 0
        public var dispatchedBytes = 0
        /// Of this process, in steps of collect and dispatch: seconds of CPU a second.
        public var cpu = 0.0
        /// While nothing but heartbeats goes on.
        public var idleCPU = 0.0
        public var residentBytes = 0
    }

    static let promptLength = 256
    private static let answersToPrompt = 8

    /// - Parameter arguments: those with which this program serves workers `first..<first + count`.
    public func run(
        executable: String, environment: [String: String], arguments: (_ first: Int, _ count: Int) -> [String]
    ) async throws -> Report {
        try Self.allowConnections()
        var settings = TransportSettings()
        // Hundreds of servers that share a few cores are slow to begin.
        settings.lostAfter = .seconds(120)
        let registry = WorkerRegistry(settings)
        let host = try LocalWorkers(executable: executable, environment: environment) { _, name, line in
            FileHandle.standardError.write(Data("[\(name)] \(line)\n".utf8))
        }
        let clock = ContinuousClock(), start = clock.now
        let plans = (0..<processes).map { process in
            let first = workers * process / processes
            return (first, workers * (process + 1) / processes - first)
        }.map { first, count in
            WorkerProcessPlan(name: "simulation \(first)", arguments: arguments(first, count))
        }
        do {
            let report = try await registry.run(host: "127.0.0.1") { controller in
                var processes: [any WorkerProcess] = []
                for name in (0..<workers).map(Self.name) { registry.expect(name) }
                for var plan in plans {
                    plan.environment =
                        WorkerPlace(name: plan.name, controller: controller, settings: registry.settings)
                        .variables
                    processes.append(try await host.start(plan))
                }
                let remotes = try await registry.await((0..<workers).map(Self.name), deadline: .seconds(300))
                defer { for remote in remotes { remote.stop() } }
                let group = WorkerGroup(
                    name: "simulation", endpoints: remotes.map { RemoteEndpoint<SimulatedWorker>($0) },
                    mesh: .data(workers))
                _ = try await group.call(SimulatedPause())
                var report = Report()
                report.start = (clock.now - start) / .seconds(1)
                try await measure(group, &report)
                return report
            }
            await host.shutdown()
            return report
        } catch {
            await host.shutdown()
            throw error
        }
    }

    private func measure(_ group: WorkerGroup<SimulatedWorker>, _ report: inout Report) async throws {
        func time<Value>(_ best: inout Double, _ body: () async throws -> Value) async throws -> Value {
            let start = ContinuousClock.now
            let value = try await body()
            best = min(best, (ContinuousClock.now - start) / .seconds(1))
            return value
        }
        let prompts = [[Int32]](
            repeating: [Int32](repeating: 3, count: Self.promptLength),
            count: max(1, samples / Self.answersToPrompt))
        let perPrompt = max(1, samples / prompts.count)
        let usage = Usage(), begin = ContinuousClock.now
        for _ in 0..<repeats {
            _ = try await time(&report.empty) { try await group.call(SimulatedPause()) }
            let answers = try await time(&report.collect) { [tokens] in
                try await group.call(
                    prompts,
                    .deal { SimulatedRollout(prompts: PackedRows($0), samples: perPrompt, tokens: tokens) }, .all)
            }
            report.collectedBytes = answers.reduce(0) { $0 + $1.tokens.byteCount + $1.logProbs.byteCount }
            let rows = answers.flatMap { answer in
                zip(answer.tokens.rows, answer.logProbs.rows).map {
                    SimulatedUpdate.Row(tokens: $0, logProbs: $1, advantage: 1)
                }
            }
            report.dispatchedBytes =
                try await time(&report.dispatch) {
                    try await group.call(
                        rows, .split(by: { Double($0.tokens.count) }) { SimulatedUpdate($0) }, .reduce { $0 + $1 })
                } * 3
            // To a thousand workers it would be what nobody does.
            if workers <= 64 {
                _ = try await time(&report.broadcast) {
                    try await group.call(SimulatedUpdate(rows), .broadcast, .first)
                }
            }
        }
        let after = Usage()
        report.cpu = (after.cpu - usage.cpu) / ((ContinuousClock.now - begin) / .seconds(1))
        let idle = ContinuousClock.now
        try await Task.sleep(for: .seconds(3))
        let last = Usage()
        report.idleCPU = (last.cpu - after.cpu) / ((ContinuousClock.now - idle) / .seconds(1))
        report.residentBytes = last.residentBytes
    }

    private static func name(_ worker: Int) -> String { "worker \(worker)" }

    /// What a process of the simulation does: serves workers until the controller is gone.
    public static func serve(first: Int, count: Int, place: WorkerPlace) async throws {
        try allowConnections()
        let host = try Address.own(towards: place.controller)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in first..<first + count {
                let place = WorkerPlace(name: name(number), controller: place.controller, settings: place.settings)
                let server = WorkerServer(
                    name: place.name, worker: SimulatedWorker(), calls: SimulatedWorker.calls, settings: place.settings)
                group.addTask {
                    try await server.run(host: host) { address in
                        try await place.register(at: address)
                        try await server.orphaned()
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// As many files and sockets as the system lets this process have.
    private static func allowConnections() throws {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// What this process has used.
    private struct Usage {
        /// Seconds.
        var cpu: Double
        var residentBytes: Int

        init() {
            var usage = rusage()
            getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
            func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) * 1e-6 }
            cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime)
            let statm = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
            let pages = statm.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
            residentBytes = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
        }
    }
}
