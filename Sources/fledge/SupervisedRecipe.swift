import ArgumentParser
import Cluster
import Config
import Flow
import Foundation
import Logging
import Telemetry
import Workers

/// What the commands of supervised training take, and how they run it.
struct SupervisedRecipe: ParsableArguments {
    @Argument(help: "The YAML file.", completion: .file(extensions: ["yaml", "yml"]))
    var config: String

    @Argument(help: ArgumentHelp("Settings to override.", valueName: "key=value"))
    var overrides: [String] = []

    func run(_ kind: SupervisedKind) async throws {
        let settings = try Failures.reported {
            try SupervisedConfig(kind, contentsOf: URL(fileURLWithPath: config), overrides: overrides)
        }
        try await Failures.reported {
            let asked = RankSettings(settings), ranks = try TrainingCluster.ranks(asked)
            // Said by the process that was started, or by the first of those that somebody else did, before any rank begins.
            if ranks.place.map({ $0.rank == 0 && $0.launcher == nil }) ?? true {
                for warning in settings.warnings { Console.note("warning: \(warning)") }
                _ = try ShardingPlan(settings.train, ranks: ranks.place?.size ?? TrainingCluster.count(asked))
            }
            try await ranks.run(restarts: settings.trainer.maxRestarts) { place, members in
                try await train(settings, place, members)
            }
        }
    }

    private func train(
        _ settings: SupervisedConfig, _ place: RankEnvironment?, _ members: RankMembership?
    ) async throws -> Int32 {
        let speaks = place?.rank ?? 0 == 0, draws = speaks && settings.trainer.logger.contains(.console)
        let title = "\(settings.experimentName): \(settings.model.path)"
        let makeView: @Sendable (Int) -> LiveView = { steps in LiveView(title: title, totalSteps: steps) }
        var log = Console.logger
        if !speaks { log.logLevel = .error }
        var rank: SupervisedRun.Rank?
        if let place, let members { rank = SupervisedRun.Rank(members, localRank: place.localRank) }
        let run = SupervisedRun(
            config: settings, log: log, versions: Version.record, view: draws ? makeView : nil, rank: rank)
        guard speaks else {
            _ = try await run.run()
            return 0
        }
        let (outcome, wasInterrupted) = try await Interruptible.run { onStart in try await run.run(onStart: onStart) }
        try RunConclusion(folder: run.folder, outcome: outcome).say()
        return outcome.wasStopped && wasInterrupted ? 130 : 0
    }
}
