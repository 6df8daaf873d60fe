/// Where worker processes run: this host, or a Ray cluster's nodes.
public protocol WorkerHost: Sendable {
    /// Starts one process.
    /// - Throws: ``ClusterError`` when there is no room or it cannot start.
    func start(_ worker: WorkerProcessPlan) async throws -> any WorkerProcess
    /// Ends all that it started and gives resources back.
    func shutdown() async
}

/// A worker process that is to be started.
public struct WorkerProcessPlan: Sendable, Hashable {
    /// What people and errors call it, as `actor/1`.
    public var name: String
    /// After the program's name.
    public var arguments: [String]
    public var environment: [String: String]
    public var gpus: Int
    public var cpus: Int
    /// Custom resources by name, which Ray's nodes may offer.
    public var resources: [String: Double]
    /// The bundle's index in the job's placement group; nil: anywhere.
    public var bundle: Int?
    /// A descriptor that the process inherits (at descriptor 3), where it is started on this host.
    public var socket: Int32?

    public init(
        name: String, arguments: [String], environment: [String: String] = [:], gpus: Int = 0, cpus: Int = 1,
        resources: [String: Double] = [:], bundle: Int? = nil
    ) {
        self.name = name
        self.arguments = arguments
        self.environment = environment
        self.gpus = gpus
        self.cpus = cpus
        self.resources = resources
        self.bundle = bundle
    }
}

/// A worker process that was started.
public protocol WorkerProcess: Sendable {
    /// That of the plan.
    var name: String { get }
    /// The address of its host, as the others reach it.
    var node: String { get }
    /// On its host.
    var processID: Int32 { get }
    /// Returns when it has ended: how, with the last lines it wrote to standard error.
    func ended() async -> WorkerEnd
    func signal(_ signal: Int32) async
    func kill() async
}

/// How a worker process ended.
public struct WorkerEnd: Sendable, Hashable {
    public var exit: RankExit
    /// The last lines it wrote to standard error.
    public var standardErrorTail: [String]
    /// Whether the whole host went away, and not this process alone.
    public var nodeLost: Bool

    public init(exit: RankExit, standardErrorTail: [String] = [], nodeLost: Bool = false) {
        self.exit = exit
        self.standardErrorTail = standardErrorTail
        self.nodeLost = nodeLost
    }
}
