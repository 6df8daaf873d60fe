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

/// Training by one process or by several ranks: this process is their controller, one of them, or the run itself.
struct RankedTraining {
    let config: RunConfig
    let command: RankedCommand
    /// Where this process is another one's worker.
    private let worker: WorkerPlace?

    init(_ config: RunConfig) throws {
        self.config = config
        worker = try WorkerPlace.given(ProcessInfo.processInfo.environment)
        WorkerPlace.forgetToken()
        var command = try TrainingCluster.ranks(RankSettings(config))
        command.hasController = worker != nil || (command.place?.rank ?? 0) > 0
        self.command = command
    }

    /// Whether this is the process that says what concerns the whole run.
    var speaks: Bool { worker == nil && command.ray == nil && (command.place?.rank ?? 0) == 0 }

    /// Runs the loop over the ranks, or alone, and gives the exit code. The gang is of the ranks that only sample, where they can be
    /// started anew while the others go on.
    typealias Train = @Sendable (WorkerGroup<RankWorker>?, _ samplers: RankGang?) async throws -> Int32

    func run(_ train: @escaping Train) async throws {
        guard let place = command.place else {
            if let ray = command.ray { return try await command.launch(ray) }
            let code =
                try await command.count == 1
                ? train(nil, nil)
                : command.heal(config.trainer.maxRestarts) { try await control(train, isAgain: $0) }
            if code != 0 { throw ExitCode(code) }
            return
        }
        try await command.takePart(place) { members in
            let rank = RankWorker(config: config, members: members, localRank: place.localRank)
            if worker == nil, place.rank == 0 { return try await lead(rank, place, train) }
            try await RankServer(rank, try worker ?? members.workerPlace(), exitCode: Failures.exitCode).run()
            return 0
        }
    }

    /// Starts the ranks as workers on this host.
    /// - Parameter isAgain: whether they were lost before: what was rehearsed then is not again.
    private func control(_ train: @escaping Train, isAgain: Bool) async throws -> Int32 {
        var environment = RankedCommand.workerEnvironment
        if isAgain { environment[FailureRehearsal.variable] = nil }
        let mesh = try RankWorker.mesh(config, ranks: command.count)
        var ranks = LocalRanks(
            count: command.count, executable: RankedCommand.executable,
            arguments: Array(CommandLine.arguments.dropFirst()), environment: environment,
            settings: try .ofRanks(deadline: command.deadline)
        ) { stream, line in
            if stream == .output { Console.say(line) } else { Console.note(line) }
        }
        if config.rollout.maxRestarts > 0, let pool = config.samplersAlone { ranks.apart = [Array(pool.ranks)] }
        ranks.firstStartOnly = [FailureRehearsal.variable]
        let outcome = try await ranks.run { seats, gangs in
            try await train(
                WorkerGroup(name: "ranks", endpoints: seats.map { SeatEndpoint($0) }, mesh: mesh), gangs.first)
        }
        var code = outcome.exitCode
        switch outcome.result {
        case .success(let own): code = own != 0 ? own : code
        case .failure(let error):
            let known = error as? WorkerCallError
            // The ranks themselves have said what was lost.
            let isTold = known.map { $0.code == .lost || $0.isConsequence } ?? false
            if !isTold { Console.note("error: \(error)") }
            let own = Failures.exitCode(error)
            // What failed at the controller ends the ranks, and is no loss of theirs.
            if known == nil || !isTold { code = own } else if code == 0 { code = own }
        }
        if code == RankExit.lostOther { Console.note(command.remedy) }
        return code
    }

    /// Rank 0 of ranks that somebody else started: controller and first worker in one.
    private func lead(
        _ rank: RankWorker, _ place: RankEnvironment,
        _ train: @escaping Train
    ) async throws -> Int32 {
        let settings = try TransportSettings.ofRanks(deadline: command.deadline), registry = WorkerRegistry(settings)
        let mesh = try RankWorker.mesh(config, ranks: place.size)
        let own = try Address.own(towards: Address(host: Address.resolve(place.host), port: place.port))
        return try await registry.run(host: own) { controller in
            try rank.members.tell(controller, settings.token)
            let others = try await registry.await(
                (1..<place.size).map(RankMembership.name), deadline: max(command.deadline, .seconds(60)))
            defer { for other in others { other.stop() } }
            let endpoints: [any WorkerEndpoint<RankWorker>] =
                [LocalEndpoint(RankMembership.name(0), rank)]
                + others.map { RemoteEndpoint<RankWorker>($0) as any WorkerEndpoint<RankWorker> }
            let group = WorkerGroup(name: "ranks", endpoints: endpoints, mesh: mesh)
            return try await withThrowingTaskGroup(of: Int32?.self) { tasks in
                tasks.addTask { try await train(group, nil) }
                tasks.addTask {
                    do { try await rank.members.watchOver() } catch {
                        // Nobody else ends the calls to a rank whose host is gone: its connections break late or never.
                        for other in others { other.stop() }
                        throw error
                    }
                    return nil
                }
                defer { tasks.cancelAll() }
                while let code = try await tasks.next() { if let code { return code } }
                throw CancellationError()
            }
        }
    }
}
