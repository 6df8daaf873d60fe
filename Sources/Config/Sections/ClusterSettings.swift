public import OrderedCollections

/// `cluster`: where the ranks run, and who starts them.
public struct ClusterSettings: Hashable, Sendable {
    public enum Kind: String, CaseIterable, Hashable, Sendable, SettingWord {
        /// This command, on this host; or whoever set the environment's variables.
        case local
        /// A Ray cluster's nodes.
        case ray
        /// torchrun, mpirun, srun or a script, which set `RANK`, `WORLD_SIZE` and `MASTER_ADDR`.
        case environment = "env"
    }

    public let kind: Kind
    /// A network interface's name; nil: that from which rank 0 is reached.
    public let interface: String?
    public let ray: RaySettings

    init(_ section: inout SectionReader) {
        kind = section.choice(
            "type", default: .local,
            doc:
                "Who starts the ranks: local is this command, on this host; ray starts them on a Ray cluster's nodes; env is torchrun, "
                + "mpirun, srun or a script, which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.")
        interface = section.optionalString(
            "interface",
            doc:
                "The network interface that ranks on several hosts reach one another by, as eth0; null for the one that "
                + "leads to rank 0.")
        ray = section.section("ray", doc: "The Ray cluster.", RaySettings.init)
    }
}

/// `cluster.ray`.
public struct RaySettings: Hashable, Sendable {
    public enum Strategy: String, CaseIterable, Hashable, Sendable, SettingWord {
        case pack = "PACK"
        case strictPack = "STRICT_PACK"
        case spread = "SPREAD"
        case strictSpread = "STRICT_SPREAD"
    }

    public let address: String?
    public let strategy: Strategy
    public let name: String?
    public let cpusPerWorker: Int
    public let resources: OrderedDictionary<String, Double>
    public let placementTimeout: Double
    public let python: String
    public let executable: String?

    init(_ section: inout SectionReader) {
        address = section.optionalString(
            "address", doc: "As 10.0.0.1:6379; null for RAY_ADDRESS, else the cluster that this host is part of.")
        strategy = section.choice(
            "placement_strategy", default: .pack,
            doc:
                "How trainer.nnodes places, each of trainer.n_gpus_per_node ranks, lie on the nodes: PACK on as few as have room, "
                + "STRICT_PACK on one, SPREAD on as many as there are, STRICT_SPREAD on one each.")
        name = section.optionalString(
            "name", doc: "What ray status and the dashboard call the run; null for the experiment_name.")
        cpusPerWorker = section.int(
            "cpus_per_worker", default: 1, in: 0...4096, doc: "Processors that Ray reserves for each rank.")
        resources = section.amounts(
            "resources", doc: "Custom resources that each rank takes, as {rack1: 0.5}.")
        placementTimeout = section.number(
            "placement_timeout", default: 300, in: NumberRange(lower: 1, upper: 604_800),
            doc: "Seconds that the run waits for room on the cluster.")
        python = section.string("python", default: "python3", doc: "The Python that runs the cluster, which has ray.")
        executable = section.optionalString(
            "executable", doc: "Where fledge is on every node; null for where it is on this one.")
    }
}
