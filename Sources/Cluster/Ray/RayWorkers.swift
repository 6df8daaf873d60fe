import Foundation
import PythonProcesses
import Synchronization

/// Worker processes on the nodes of a Ray cluster.
///
/// Ray gives places and devices, shows them under the workers' names, and tells which process or node is gone. What the
/// workers say to one another and to the controller goes directly between them. Ray does not notice a process that hangs: heartbeats
/// are the callers'.
public final class RayWorkers: WorkerHost {
    public enum Strategy: String, Sendable, CaseIterable {
        case pack = "PACK"
        case strictPack = "STRICT_PACK"
        case spread = "SPREAD"
        case strictSpread = "STRICT_SPREAD"
    }

    public struct Settings: Sendable {
        /// As `10.0.0.1:6379`; nil: `RAY_ADDRESS`, or the cluster that this host is part of.
        public var address: String?
        /// The Python that runs the cluster: a name to look up in PATH, or a path.
        public var python = "python3"
        /// What people see of this run in `ray status` and on the dashboard.
        public var name = "fledge"
        public var strategy = Strategy.pack
        /// What is reserved together, one place each: amounts of `CPU`, `GPU` and custom resources. None: workers are placed one
        /// by one.
        public var bundles: [[String: Double]] = []
        /// How long room is waited for.
        public var patience = Duration.seconds(300)
        /// The workers' program, at this path on every node.
        public var executable: String
        /// Where the workers run; nil: in the folder that Ray unpacked for the job on each node.
        public var directory: String?

        public init(executable: String) { self.executable = executable }
    }

    /// Takes a line of a worker, or one about the cluster, whose name is then empty.
    public typealias Sink = @Sendable (_ stream: Launcher.Stream, _ name: String, _ line: String) -> Void

    private let settings: Settings
    private let conversation: RayConversation

    private init(_ settings: Settings, _ conversation: RayConversation) {
        self.settings = settings
        self.conversation = conversation
    }

    /// Connects to the cluster and reserves the places.
    /// - Throws: ``ClusterError`` with code `noCluster` where Python, Ray or the cluster cannot be had, `noRoom` where the places
    ///   cannot.
    public static func connect(_ settings: Settings, write: @escaping Sink) async throws -> RayWorkers {
        guard let interpreter = PythonProcess.find(settings.python) else {
            throw ClusterError(
                .noCluster,
                "there is no Python '\(settings.python)'; name the one that runs the cluster in cluster.ray.python")
        }
        var process = PythonProcess(interpreter: interpreter, program: RayProgram.source)
        process.framing = .lines
        process.maximumFrame = 1 << 22
        let own = ProcessInfo.processInfo.environment
        for (name, value) in own where name.hasPrefix("RAY_") || name == "PYTHONPATH" || name == "VIRTUAL_ENV" {
            process.environment[name] = value
        }
        var request = RayRequest("connect")
        request.address = settings.address
        request.name = settings.name
        request.strategy = settings.strategy.rawValue
        request.bundles = settings.bundles
        request.patience = settings.patience / .seconds(1)
        let conversation = RayConversation(process, write)
        try await conversation.start(request)
        return RayWorkers(settings, conversation)
    }

    /// The cluster's nodes at the time of connecting.
    public var nodes: [RayNode] { get async { await conversation.nodes } }
    /// Ray's version and Python's.
    public var versions: (ray: String, python: String) { get async { await conversation.versions } }

    /// Starts a worker where Ray has room for it.
    /// - Throws: ``ClusterError``, with code `noRoom` where it has none.
    public func start(_ worker: WorkerProcessPlan) async throws -> any WorkerProcess {
        let seat = try await place(worker)
        return try await start(worker, at: seat)
    }

    /// A place that is taken, before the process starts.
    public struct Seat: Sendable {
        let id: Int
        public let place: RayPlace
    }

    /// Takes the worker's place.
    /// - Parameter listens: whether a socket is opened there, which the process inherits: ``RayPlace/port``.
    public func place(_ worker: WorkerProcessPlan, listens: Bool = false) async throws -> Seat {
        var request = RayRequest("place")
        request.name = "\(settings.name)/\(worker.name)"
        request.bundle = worker.bundle
        request.cpus = worker.cpus
        request.gpus = worker.gpus
        request.resources = worker.resources
        request.listens = listens
        return try await conversation.place(request, name: worker.name)
    }

    /// Starts the process at its place.
    public func start(_ worker: WorkerProcessPlan, at seat: Seat) async throws -> any WorkerProcess {
        var request = RayRequest("run", id: seat.id)
        request.arguments = [settings.executable] + worker.arguments
        request.environment = worker.environment
        request.directory = settings.directory
        return try await conversation.run(request, seat)
    }

    public func shutdown() async { await conversation.shutdown() }
}

extension ClusterError.Code {
    /// There is no cluster to be had: no Python, no Ray, nobody at the address.
    public static let noCluster = ClusterError.Code("noCluster")
    /// The cluster has no room.
    public static let noRoom = ClusterError.Code("noRoom")
    /// A worker's process could not be started at its place.
    public static let notStarted = ClusterError.Code("notStarted")
}

/// A worker on a node of the cluster.
final class RayWorker: WorkerProcess {
    let name: String
    let node: String
    let processID: Int32
    let id: Int
    private let conversation: RayConversation
    private struct State {
        var end: WorkerEnd?
        var waiters: [CheckedContinuation<WorkerEnd, Never>] = []
    }
    private let state = Mutex(State())

    init(name: String, node: String, processID: Int32, id: Int, conversation: RayConversation) {
        self.name = name
        self.node = node
        self.processID = processID
        self.id = id
        self.conversation = conversation
    }

    func ended() async -> WorkerEnd {
        await withCheckedContinuation { waiter in
            let end = state.withLock { state in
                if state.end == nil { state.waiters.append(waiter) }
                return state.end
            }
            if let end { waiter.resume(returning: end) }
        }
    }

    func end(_ end: WorkerEnd) {
        let waiters = state.withLock { state in
            if state.end == nil { state.end = end }
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(returning: end) }
    }

    func signal(_ signal: Int32) async {
        var request = RayRequest("signal", id: id)
        request.signal = signal
        await conversation.send(request)
    }

    func kill() async { await conversation.send(RayRequest("kill", id: id)) }
}
