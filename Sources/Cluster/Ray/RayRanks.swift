#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Runs ranks on the nodes of a Ray cluster, as ``Launcher`` does on one host: starts them, passes their lines on, names the first
/// that fails, ends the others; and starts all of them anew, elsewhere if need be, when one was lost through no fault of its own.
public final class RayRanks: Sendable {
    public struct Plan: Sendable {
        public var settings: RayWorkers.Settings
        /// Places, each of `perPlace` ranks on one node.
        public var places: Int
        public var perPlace: Int
        /// What each rank takes.
        public var gpus = 0
        public var cpus = 1
        public var resources: [String: Double] = [:]
        /// After the program's name.
        public var arguments: [String]
        public var environment: [String: String] = [:]
        /// Variables that ranks which are started anew do not get.
        public var firstStartOnly: Set<String> = []
        public var grace: Duration = .seconds(10)
        /// How often ranks are started anew.
        public var restarts = 0
        public var remedy = ""
        /// Exit codes with which a rank has said itself why it ends.
        public var explained: Set<Int32> = [1, 2]

        public init(_ settings: RayWorkers.Settings, places: Int, perPlace: Int, arguments: [String]) {
            self.settings = settings
            self.places = places
            self.perPlace = perPlace
            self.arguments = arguments
        }

        var size: Int { places * perPlace }

        var bundle: [String: Double] {
            var amounts = resources.mapValues { $0 * Double(perPlace) }
            amounts["CPU"] = Double(cpus * perPlace)
            amounts["GPU"] = Double(gpus * perPlace)
            return amounts
        }
    }

    public let plan: Plan
    private let write: @Sendable (Launcher.Stream, String) -> Void
    private let interrupts = Interrupts()

    /// - Parameter write: takes whole lines; those of rank 0's standard output as they are, others with the rank's number.
    public init(_ plan: Plan, write: @escaping @Sendable (Launcher.Stream, String) -> Void) {
        self.plan = plan
        self.write = write
    }

    /// Passes a signal on to rank 0, which ends the run in good order.
    public func forward(_ signal: Int32) {
        Task { await interrupts.forward(signal) }
    }

    private actor Interrupts {
        private var rankZero: (any WorkerProcess)?
        private var pending: [Int32] = []
        private(set) var wasAsked = false

        func forward(_ signal: Int32) async {
            wasAsked = true
            if let rankZero { await rankZero.signal(signal) } else { pending.append(signal) }
        }

        func start(_ process: any WorkerProcess) async {
            rankZero = process
            for signal in pending { await process.signal(signal) }
            pending = []
        }
    }

    /// Runs the ranks to their end.
    /// - Returns: 0, or the exit code of the first rank that failed by itself, or ``RankExit/lostOther``.
    /// - Throws: ``ClusterError`` where the cluster or its room cannot be had.
    public func run() async throws -> Int32 {
        var settings = plan.settings
        settings.bundles = Array(repeating: plan.bundle, count: plan.places)
        let write = write
        let workers = try await RayWorkers.connect(settings) { stream, name, line in
            write(
                stream,
                stream == .output && name == "rank-0" || name.isEmpty
                    ? line : "[\(name.replacing("rank-", with: "rank "))] \(line)")
        }
        do {
            let code = try await run(workers)
            await workers.shutdown()
            return code
        } catch {
            await workers.shutdown()
            throw error
        }
    }

    private func run(_ workers: RayWorkers) async throws -> Int32 {
        var restart = 0
        while true {
            let code = try await runOnce(workers, restart)
            guard code == RankExit.lostOther, restart < plan.restarts, await !interrupts.wasAsked else {
                if code == RankExit.lostOther, !plan.remedy.isEmpty { write(.errors, plan.remedy) }
                return code
            }
            restart += 1
            write(
                .errors,
                "the ranks are started anew, and go on from the last checkpoint (\(restart) of trainer.max_restarts \(plan.restarts))"
            )
        }
    }

    private func worker(_ rank: Int, _ environment: [String: String] = [:]) -> WorkerProcessPlan {
        WorkerProcessPlan(
            name: "rank-\(rank)", arguments: plan.arguments, environment: plan.environment.merging(environment) { $1 },
            gpus: plan.gpus, cpus: plan.cpus, resources: plan.resources, bundle: rank / plan.perPlace)
    }

    private func runOnce(_ workers: RayWorkers, _ restart: Int) async throws -> Int32 {
        let seats = try await withThrowingTaskGroup(of: (Int, RayWorkers.Seat).self) { tasks in
            for rank in 0..<plan.size {
                tasks.addTask { (rank, try await workers.place(self.worker(rank), listens: rank == 0)) }
            }
            return try await tasks.reduce(into: [Int: RayWorkers.Seat]()) { $0[$1.0] = $1.1 }
        }
        let places = (0..<plan.size).compactMap { seats[$0]?.place }
        guard let first = places.first, let port = first.port, places.count == plan.size else {
            throw ClusterError(.noRoom, "rank 0 has no port on its node")
        }
        announce(places)
        if restart == 0 {
            for finding in ClusterCheck.findings(places, nodes: await workers.nodes) {
                write(.errors, "warning: \(finding)")
            }
        }
        var processes: [any WorkerProcess] = []
        for rank in 0..<plan.size {
            guard let seat = seats[rank] else { continue }
            // Ray shows a rank its own GPUs only.
            let local = places[..<rank].count { $0.node == seat.place.node }
            let place = RankEnvironment(rank: rank, size: plan.size, localRank: local, host: first.node, port: port)
            do {
                var plan = worker(rank, place.variables)
                if restart > 0 { for name in self.plan.firstStartOnly { plan.environment[name] = nil } }
                processes.append(try await workers.start(plan, at: seat))
            } catch {
                for process in processes { await process.kill() }
                throw error
            }
        }
        await interrupts.start(processes[0])
        return await watch(processes)
    }

    private func announce(_ places: [RayPlace]) {
        var ranks: [(node: String, ranks: [String])] = []
        for (rank, place) in places.enumerated() {
            let text = place.gpus.isEmpty ? "\(rank)" : "\(rank) (GPU \(place.gpus.joined(separator: ",")))"
            if let index = ranks.firstIndex(where: { $0.node == place.node }) {
                ranks[index].ranks.append(text)
            } else {
                ranks.append((place.node, [text]))
            }
        }
        let text = ranks.map {
            "\($0.node): \($0.ranks.count == 1 ? "rank" : "ranks") \($0.ranks.joined(separator: ", "))"
        }
        write(.errors, "on the Ray cluster, " + text.joined(separator: "; "))
    }

    private enum Event: Sendable {
        case ended(Int, WorkerEnd)
        case graceIsOver
        /// Not even Ray says what became of those that are left.
        case nobodyKnows
    }

    private func watch(_ processes: [any WorkerProcess]) async -> Int32 {
        let start = ContinuousClock.now, grace = plan.grace
        return await withTaskGroup(of: Event.self) { tasks in
            for (rank, process) in processes.enumerated() {
                tasks.addTask { .ended(rank, await process.ended()) }
            }
            var exits: [RankExit] = []
            var running = Set(processes.indices)
            var hasFailed = false, isNamed = false
            while !running.isEmpty, let event = await tasks.next() {
                switch event {
                case .graceIsOver:
                    for rank in running.sorted() {
                        write(.errors, "rank \(rank) on \(processes[rank].node) does not end, and is killed")
                        await processes[rank].kill()
                    }
                    tasks.addTask {
                        try? await Task.sleep(for: .seconds(60))
                        return .nobodyKnows
                    }
                case .nobodyKnows:
                    for rank in running {
                        (processes[rank] as? RayWorker)?.end(
                            WorkerEnd(
                                exit: .signaled(SIGKILL), standardErrorTail: ["it was not heard of again"],
                                nodeLost: true))
                    }
                case .ended(let rank, let end):
                    running.remove(rank)
                    // A lost node says nothing of what would have come of the run.
                    exits.append(end.nodeLost ? .exited(RankExit.lostOther) : end.exit)
                    if end.exit.isSuccess { continue }
                    // What ended because of another rank says so itself, and what was interrupted needs no comment.
                    if !isNamed, end.nodeLost || ![.exited(RankExit.lostOther), .exited(130)].contains(end.exit) {
                        isNamed = true
                        report(rank, processes[rank], end, after: .now - start)
                    }
                    if hasFailed { continue }
                    hasFailed = true
                    tasks.addTask {
                        try? await Task.sleep(for: grace)
                        return .graceIsOver
                    }
                }
            }
            tasks.cancelAll()
            return exitCode(of: exits)
        }
    }

    private func report(_ rank: Int, _ process: any WorkerProcess, _ end: WorkerEnd, after time: Duration) {
        let seconds = Int(time / .seconds(1))
        let what = end.nodeLost ? "is lost with its node" : "\(end.exit)"
        write(
            .errors,
            "rank \(rank) (process \(process.processID) on \(process.node)) \(what), \(seconds) s after the start"
                + (plan.size > 1 ? "; the others are ended" : ""))
        if case .exited(let code) = end.exit, plan.explained.contains(code) { return }
        if !end.standardErrorTail.isEmpty {
            write(.errors, end.nodeLost ? "Ray says:" : "the last it wrote to standard error:")
        }
        for line in end.standardErrorTail.flatMap({ $0.split(separator: "\n") }) { write(.errors, "  " + line) }
    }
}
