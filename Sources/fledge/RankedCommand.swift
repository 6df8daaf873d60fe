import ArgumentParser
import Cluster
import Collectives
import Config
import Flow
import Foundation
import TensorCore
import Workers

#if canImport(Glibc)
    import Glibc
#endif

/// A command that several ranks carry out, one process each: started by this process, by torchrun and the like, or this one alone.
struct RankedCommand {
    let count: Int
    let deadline: Duration
    /// What to say when a rank was lost.
    let remedy: String
    /// This process's place, where it is one of several.
    let place: RankEnvironment?
    /// Whether another process gets this one's errors as answers, and says them.
    var hasController = false
    /// The network interface to be reached by; nil: the one that leads to rank 0.
    var interface: String?
    /// Where the ranks are started, unless on this host.
    var ray: RayRanks.Plan?
    /// The folder that all hosts must share.
    var sharedFolder: String?
    /// What all hosts must have the same of.
    var versions: [String: String] { ["fledge": Version.number, "torch": Torch.version] }

    /// - Throws: ``ClusterError`` where the environment is not whole.
    init(count: @autoclosure () throws -> Int, deadline: Duration, remedy: String) throws {
        place = try RankEnvironment.given(ProcessInfo.processInfo.environment)
        place?.dieWithLauncher()
        place?.leaveSignalsToRankZero()
        self.count = try place?.size ?? count()
        self.deadline = deadline
        self.remedy = remedy
    }

    /// Whether this is the process that says what concerns the whole run.
    var speaks: Bool { place.map { $0.rank == 0 } ?? (count == 1 && ray == nil) }

    /// The ranks that a configuration asks for.
    static func count(_ settings: RankSettings) throws -> Int {
        let asked = settings.asked
        let name = settings.hasPools ? "resource_pools, all together," : "trainer.n_gpus_per_node"
        switch settings.device {
        case .cpu: return asked ?? 1
        case .cuda(let index?):
            guard asked ?? 1 == 1 else {
                throw WorkerError(
                    .badSetting,
                    "device: cuda:\(index) is one GPU, and \(name) is \(asked ?? 1); write device: cuda, and "
                        + "choose among the GPUs by CUDA_VISIBLE_DEVICES")
            }
            return 1
        case .auto, .cuda(nil):
            let visible = VisibleDevices.count()
            if settings.device == .auto, visible == 0 { return asked ?? 1 }
            if let samplers = settings.samplers {
                guard samplers < visible else {
                    throw WorkerError(
                        .device,
                        "rollout.n_gpus_per_node is \(samplers), beside one that trains, and this machine shows \(visible) CUDA devices"
                    )
                }
                return 1
            }
            guard let asked else { return max(1, visible) }
            guard asked <= visible else {
                throw WorkerError(
                    .device, "\(name) is \(asked), and this machine shows \(visible) CUDA devices")
            }
            return asked
        }
    }

    /// The ranks that a benchmark of several devices asks for by `--devices`; nil: all GPUs, or two processes on the CPU.
    static func count(devices: Int?, on device: String) throws -> Int {
        let visible = device == "cpu" ? 0 : VisibleDevices.count()
        if device == "cuda" || visible > 0, devices ?? visible > visible || visible < 2 {
            throw WorkerError(
                .device,
                "--devices \(devices ?? 2): this machine shows \(visible) CUDA devices; --device cpu measures processes"
            )
        }
        return devices ?? max(2, visible)
    }

    /// What a benchmark's rank computes on.
    static func device(_ name: String, of place: RankEnvironment) throws -> Device {
        try DeviceOptions.choice(name).of(place.localRank).open()
    }

    /// Runs `body` in each rank; with neither place nor members where there is one rank only.
    func run(_ body: (RankEnvironment?, RankMembership?) async throws -> Void) async throws {
        if let ray { return try await launch(ray) }
        if let place {
            return try await takePart(place) { members in
                try await body(place, members)
                return 0
            }
        }
        if count == 1 { return try await body(nil, nil) }
        try await end(launch([:], speaker: nil))
    }

    /// Runs `body` in each rank, and ends with the exit code that it gives. Ranks that this process starts begin again together where one
    /// is lost, up to so many times; those of a Ray cluster do as their plan says.
    func run(restarts: Int, _ body: (RankEnvironment?, RankMembership?) async throws -> Int32) async throws {
        if let ray { return try await launch(ray) }
        if let place { return try await takePart(place) { try await body(place, $0) } }
        if count == 1 { return try end(try await body(nil, nil)) }
        try end(
            try await heal(restarts) { isAgain in
                // What was rehearsed once is not again.
                try await launch(isAgain ? [FailureRehearsal.variable: ""] : [:], speaker: 0)
            })
    }

    /// Begins again where a rank was lost: all ranks as one gang, from the last checkpoint.
    func heal(_ most: Int, _ attempt: (_ isAgain: Bool) async throws -> Int32) async throws -> Int32 {
        var code = try await attempt(false)
        for restart in 0..<most where code == RankExit.lostOther {
            Console.note("all ranks are started anew: restart \(restart + 1) of at most \(most) (trainer.max_restarts)")
            code = try await attempt(true)
        }
        return code
    }

    private func end(_ code: Int32) throws { if code != 0 { throw ExitCode(code) } }

    /// Starts the ranks on a Ray cluster's nodes.
    func launch(_ ray: RayRanks.Plan) async throws {
        var plan = ray
        plan.remedy = remedy
        let ranks = RayRanks(plan) { stream, line in
            if stream == .output { Console.say(line) } else { Console.note(line) }
        }
        let interrupts = InterruptHandler()
        interrupts.onFirst { ranks.forward(SIGINT) }
        let code = try await ranks.run()
        if code != 0 { throw ExitCode(code) }
    }

    /// This program, for a rank.
    static var executable: String { URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path }

    /// What a rank gets of this process's environment.
    static var workerEnvironment: [String: String] {
        var environment = ProcessInfo.processInfo.environment
        // libtorch's warnings of connections that broke, pages of them, say nothing that the ranks do not.
        if environment["TORCH_CPP_LOG_LEVEL"] == nil { environment["TORCH_CPP_LOG_LEVEL"] = "ERROR" }
        return environment
    }

    /// - Parameters:
    ///   - variables: what the ranks' environment has else or otherwise.
    ///   - speaker: a rank whose standard output is this process's.
    private func launch(_ variables: [String: String], speaker: Int?) async throws -> Int32 {
        var plan = Launcher.Plan(
            count: count, executable: Self.executable, arguments: Array(CommandLine.arguments.dropFirst()),
            environment: Self.workerEnvironment.merging(variables) { $1 })
        plan.remedy = remedy
        plan.speaker = speaker
        let launcher = Launcher(plan) { stream, line in
            if stream == .output { Console.say(line) } else { Console.note(line) }
        }
        let interrupts = InterruptHandler()
        interrupts.onFirst { launcher.forward(SIGINT) }
        return try await launcher.run()
    }

    /// Runs `body` as one of several ranks, and ends this process with the exit code that it gives.
    func takePart(_ place: RankEnvironment, _ body: (RankMembership) async throws -> Int32) async throws {
        var members: RankMembership?
        do {
            let joined = try RankMembership.join(
                place, deadline: deadline, interface: interface, versions: versions, folder: sharedFolder)
            for warning in joined.warnings { Console.note("warning: \(warning)") }
            members = joined
            let code = try await body(joined)
            joined.leave()
            leave(code)
        } catch {
            let cause = await members?.cause(of: error) ?? error
            members?.leave(failure: cause)
            leave(report(cause, place))
        }
    }

    private func report(_ error: any Error, _ place: RankEnvironment) -> Int32 {
        if let error = error as? TorchError, error.code == .rank, !RankLoss.isFirstHand(error) {
            Console.note("ends, because another rank did:\n\(error)")
            return RankExit.lostOther
        }
        let code = Failures.exitCode(error)
        if !isSaidByController(error, place) { Console.note("error: \(error)") }
        if code == RankExit.lostOther, place.rank == 0, place.launcher == nil { Console.note(remedy) }
        return code
    }

    /// Whether the controller has got the error as an answer.
    private func isSaidByController(_ error: any Error, _ place: RankEnvironment) -> Bool {
        guard hasController else { return false }
        return !(RankServer.mayComeFromAnother(error) || error is ClusterError || error is WorkerCallError)
    }

    /// Not `exit`: threads may be waiting for ranks that will never come.
    private func leave(_ code: Int32) -> Never { _exit(code) }
}

/// What an error says of a rank that was lost.
enum RankLoss {
    /// Whether this rank itself saw that another is dead or late; else the other one has said why it ended.
    static func isFirstHand(_ error: TorchError) -> Bool {
        ["is dead", "past its deadline", "has shown no life"].contains { error.message.contains($0) }
    }
}
