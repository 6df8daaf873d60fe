import Cluster
import Collectives
import Config
import Foundation
import Workers

/// The ranks that a training configuration asks for, wherever they run.
enum TrainingCluster {
    static let remedy = "the run's checkpoints are whole: the same command goes on from the last one"

    /// - Throws: ``ClusterError``, ``WorkerError`` where the environment does not fit the configuration.
    static func ranks(_ settings: RankSettings) throws -> RankedCommand {
        var ranks = try RankedCommand(
            count: localCount(settings), deadline: .seconds(settings.trainer.collectiveTimeout), remedy: remedy)
        ranks.interface = settings.cluster.interface
        ranks.sharedFolder = settings.runFolder
        try checkSize(settings, ranks.place)
        if settings.cluster.kind == .ray, ranks.place == nil { ranks.ray = ray(settings) }
        return ranks
    }

    /// All ranks of the run.
    static func count(_ settings: RankSettings) throws -> Int {
        if settings.cluster.kind != .local, let asked = settings.asked { return asked }
        return try RankedCommand.count(settings)
    }

    /// The ranks to start on this host.
    private static func localCount(_ settings: RankSettings) throws -> Int {
        switch settings.cluster.kind {
        case .local: return try RankedCommand.count(settings)
        case .ray: return 1
        case .environment:
            guard settings.trainer.nodes == 1, settings.trainer.gpusPerNode ?? 1 == 1 else {
                throw ClusterError(
                    .badEnvironment,
                    "cluster.type is env, and the environment says of no rank which it is; start the ranks by torchrun, mpirun or "
                        + "srun, or set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each")
            }
            return 1
        }
    }

    private static func checkSize(_ settings: RankSettings, _ place: RankEnvironment?) throws {
        guard let place, let asked = settings.asked, place.size != asked else { return }
        throw WorkerError(
            .badSetting,
            "the environment says that there are \(place.size) ranks; "
                + (settings.hasPools
                    ? "resource_pools have \(asked)"
                    : "trainer.nnodes \(settings.trainer.nodes) of trainer.n_gpus_per_node \(settings.trainer.gpusPerNode ?? 1) make \(asked)")
        )
    }

    private static func ray(_ settings: RankSettings) -> RayRanks.Plan {
        let ray = settings.cluster.ray
        let own = ProcessInfo.processInfo.environment
        var workers = RayWorkers.Settings(
            executable: ray.executable
                ?? URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path)
        workers.address = ray.address
        workers.python = ray.python
        workers.name = ray.name ?? settings.experimentName
        workers.patience = .seconds(ray.placementTimeout)
        workers.strategy =
            switch ray.strategy {
            case .pack: .pack
            case .strictPack: .strictPack
            case .spread: .spread
            case .strictSpread: .strictSpread
            }
        // A job's files are where Ray unpacks them, on each node; else all nodes must see this folder.
        let isJob = RayJobs.hasFolder(own)
        workers.directory = isJob ? nil : FileManager.default.currentDirectoryPath
        var plan = RayRanks.Plan(
            workers, places: settings.trainer.nodes, perPlace: settings.trainer.gpusPerNode ?? 1,
            arguments: Array(CommandLine.arguments.dropFirst()))
        plan.gpus = settings.device == .cpu ? 0 : 1
        plan.cpus = ray.cpusPerWorker
        plan.resources = Dictionary(uniqueKeysWithValues: ray.resources.map { ($0.key, $0.value) })
        plan.restarts = settings.trainer.maxRestarts
        // What steers Fledge and its libraries goes along; what else this host's environment holds is not the nodes' business.
        let prefixes = ["FLEDGE_", "NCCL_", "GLOO_", "TORCH_", "UCX_"]
        plan.environment = own.filter { name, _ in prefixes.contains { name.hasPrefix($0) } || name == "OMP_NUM_THREADS"
        }
        plan.firstStartOnly = [FailureRehearsal.variable]
        if plan.environment["TORCH_CPP_LOG_LEVEL"] == nil { plan.environment["TORCH_CPP_LOG_LEVEL"] = "ERROR" }
        return plan
    }
}
