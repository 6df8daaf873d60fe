import ArgumentParser
import Cluster
import Config
import Foundation
import Workers

#if canImport(Glibc)
    import Glibc
#endif

struct Submit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run fledge train as a job of a Ray cluster.",
        discussion: """
            The recipe and the files that it names go along; the job runs where Ray puts it, and its output is followed. Fledge and the model
            must be on the nodes already, at the same paths.

            EXAMPLES
              fledge submit recipes/ray.yaml --address http://10.0.0.1:8265
              fledge submit my.yaml rollout.n=16 --address http://10.0.0.1:8265 --no-wait
              fledge submit my.yaml --address http://10.0.0.1:8265 --check
              fledge submit --status raysubmit_x --address http://10.0.0.1:8265
              fledge submit --stop raysubmit_x --address http://10.0.0.1:8265
            """)

    @Argument(help: "The YAML file.", completion: .file(extensions: ["yaml", "yml"]))
    var config: String?

    @Argument(help: ArgumentHelp("Settings to override.", valueName: "key=value"))
    var overrides: [String] = []

    @Option(help: "The dashboard's address, as http://10.0.0.1:8265; by default RAY_API_SERVER_ADDRESS.")
    var address: String?

    @Flag(help: "Do not wait for the job's end.")
    var noWait = false

    @Flag(help: "Look at the recipe, its files and the cluster, and submit nothing.")
    var check = false

    @Option(help: "The job's id; by default Ray makes one.")
    var id: String?

    @Option(help: "Files or folders to send along, within this one; may be repeated.")
    var include: [String] = []

    @Option(help: "Where fledge is on the nodes; by default where this one is.")
    var executable: String?

    @Option(help: ArgumentHelp("A variable for the job's environment; may be repeated.", valueName: "NAME=VALUE"))
    var env: [String] = []

    @Option(help: ArgumentHelp("Say how a job is.", valueName: "ID"))
    var status: String?

    @Option(help: ArgumentHelp("Follow a job's output to its end.", valueName: "ID"))
    var follow: String?

    @Option(help: ArgumentHelp("End a job.", valueName: "ID"))
    var stop: String?

    func validate() throws {
        let asked = [config != nil, status != nil, follow != nil, stop != nil].count { $0 }
        guard asked == 1 else {
            throw ValidationError("give a recipe, or one of --status, --follow and --stop with a job's id")
        }
        guard variables != nil else { throw ValidationError("--env takes NAME=VALUE") }
        guard dashboard != nil else {
            throw ValidationError("--address is missing: the dashboard's, as http://10.0.0.1:8265")
        }
    }

    private var dashboard: String? { address ?? ProcessInfo.processInfo.environment["RAY_API_SERVER_ADDRESS"] }

    private var variables: [String: String]? {
        var found: [String: String] = [:]
        for text in env {
            guard let sign = text.firstIndex(of: "="), sign != text.startIndex else { return nil }
            found[String(text[..<sign])] = String(text[text.index(after: sign)...])
        }
        return found
    }

    func run() async throws {
        try await Failures.reported {
            // Ray's own client takes these too, for a token.
            let headers = try ProcessInfo.processInfo.environment["RAY_JOB_HEADERS"].map {
                try JSONDecoder().decode([String: String].self, from: Data($0.utf8))
            }
            let jobs = try RayJobs(address: dashboard ?? "", headers: headers ?? [:])
            if let status {
                let job = try await jobs.job(status)
                Console.say("\(status): \(job.status.rawValue)\(job.message.isEmpty ? "" : ", \(job.message)")")
            } else if let stop {
                let ran = try await jobs.stop(stop)
                Console.say(ran ? "\(stop) is told to end" : "\(stop) did not run any more")
            } else if let follow {
                try await wait(for: follow, jobs)
            } else if let config {
                try await submit(config, jobs)
            }
        }
    }

    private func submit(_ config: String, _ jobs: RayJobs) async throws {
        let settings = try RunConfig(
            contentsOf: URL(fileURLWithPath: config), overrides: overrides, names: TrainingRun.knownNames)
        for warning in settings.warnings { Console.note("warning: \(warning)") }
        let folder = URL(fileURLWithPath: FileManager.default.currentDirectoryPath, isDirectory: true)
        let package = try package(config, settings, folder)
        for note in notes(settings, package.paths) { Console.note("note: \(note)") }
        if check { return try await report(settings, package, jobs) }
        let archive = try await jobs.upload(package)
        let program =
            executable ?? URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path
        let line = ([program, "train", Self.relative(config, folder)] + overrides).map(Self.quoted)
        let id = try await jobs.submit(
            "exec " + line.joined(separator: " "), id: id, workingDirectory: archive, environment: variables ?? [:],
            metadata: ["fledge": Version.number, "experiment": settings.experimentName])
        Console.note("job \(id); fledge submit --follow, --status or --stop \(id)")
        if noWait { return Console.say(id) }
        try await wait(for: id, jobs)
    }

    private func wait(for id: String, _ jobs: RayJobs) async throws {
        let interrupts = InterruptHandler()
        interrupts.onFirst {
            Console.note("job \(id) goes on; fledge submit --stop \(id) ends it")
            _exit(130)
        }
        let job = try await jobs.follow(id) { Console.stream($0) }
        if job.status != .succeeded {
            Console.note("job \(id): \(job.status.rawValue)\(job.message.isEmpty ? "" : ", \(job.message)")")
        }
        if job.outcome != 0 { throw ExitCode(job.outcome) }
    }

    // MARK: - Files

    static func quoted(_ text: String) -> String { "'" + text.replacing("'", with: "'\\''") + "'" }

    static func relative(_ path: String, _ folder: URL) -> String {
        let whole = URL(fileURLWithPath: path).standardizedFileURL.resolvingSymlinksInPath().path
        let root = folder.standardizedFileURL.resolvingSymlinksInPath().path + "/"
        return whole.hasPrefix(root) ? String(whole.dropFirst(root.count)) : path
    }

    private func package(_ config: String, _ settings: RunConfig, _ folder: URL) throws -> JobPackage {
        var package = JobPackage()
        try package.add(config, of: folder)
        let named =
            settings.data.trainFiles + settings.data.valFiles
            + [settings.model.chatTemplate, settings.reward.customRewardFunction?.path].compactMap { $0 }
        for path in named where !path.hasPrefix("/") && FileManager.default.fileExists(atPath: path) {
            try package.add(path, of: folder)
        }
        for path in include { try package.add(path, of: folder) }
        return package
    }

    /// What the nodes will look for where it may not be.
    private func notes(_ settings: RunConfig, _ sent: [String]) -> [String] {
        var notes: [String] = []
        let model = settings.model.path
        if !model.hasPrefix("/"), !sent.contains(where: { $0 == model || $0.hasPrefix(model + "/") }) {
            notes.append(
                "model.path \(model) is looked for in the job's folder; give an absolute path that all nodes see, or --include it"
            )
        }
        if !settings.runFolder.hasPrefix("/") {
            notes.append(
                "the run's folder \(settings.runFolder) is within the job's, which Ray removes; make trainer.default_local_dir an "
                    + "absolute path that all nodes share")
        }
        if settings.cluster.kind != .ray {
            notes.append(
                "cluster.type is \(settings.cluster.kind.rawValue): the job uses the node that it starts on, and no other"
            )
        }
        return notes
    }

    // MARK: - Check

    private func report(_ settings: RunConfig, _ package: JobPackage, _ jobs: RayJobs) async throws {
        let version = try await jobs.version()
        let nodes = try await jobs.nodes()
        let alive = nodes.filter(\.isAlive)
        Console.say("recipe: whole; \(package.paths.count) files go along: \(package.paths.joined(separator: ", "))")
        Console.say("cluster: Ray \(version), \(alive.count) nodes alive, \(nodes.count - alive.count) lost")
        for node in alive {
            let facts = [
                node.gpus.map { "\($0) GPUs" }, node.freeDisk.map { "disk \($0 >> 30) GiB free" },
            ]
            Console.say("  \(node.address): \(facts.compactMap { $0 }.joined(separator: ", "))")
        }
        let asked = settings.trainer.nodes * (settings.trainer.gpusPerNode ?? 1)
        guard settings.cluster.kind == .ray else { return }
        if settings.device != .cpu, alive.allSatisfy({ $0.gpus != nil }) {
            let there = alive.reduce(0) { $0 + ($1.gpus ?? 0) }
            guard asked <= there else {
                throw ClusterError(
                    .noRoom,
                    "trainer.nnodes \(settings.trainer.nodes) of trainer.n_gpus_per_node \(settings.trainer.gpusPerNode ?? 1) "
                        + "take \(asked) GPUs, and the cluster has \(there)")
            }
        }
        if settings.cluster.ray.strategy == .strictSpread, settings.trainer.nodes > alive.count {
            throw ClusterError(
                .noRoom,
                "cluster.ray.placement_strategy STRICT_SPREAD puts each of trainer.nnodes \(settings.trainer.nodes) on a node of its own, "
                    + "and the cluster has \(alive.count)")
        }
        Console.say("the job has room for its \(asked) ranks, when nobody else is on the cluster")
    }
}
