import ArgumentParser
import Cluster
import Config
import Flow
import Foundation
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
        for warning in settings.warnings { Console.note("warning: \(warning)") }
        try await Failures.reported {
            try refuseRanks(kind)
            try await train(settings)
        }
    }

    /// Several processes would write one run's folder.
    private func refuseRanks(_ kind: SupervisedKind) throws {
        guard let place = try RankEnvironment.given(ProcessInfo.processInfo.environment) else { return }
        throw ClusterError(
            .badEnvironment,
            "\(kind.command) trains on one device yet, and the environment says that this is rank \(place.rank) of \(place.size); "
                + "start it once, without torchrun, mpirun or srun")
    }

    private func train(_ settings: SupervisedConfig) async throws {
        let draws = settings.trainer.logger.contains(.console)
        let title = "\(settings.experimentName): \(settings.model.path)"
        let makeView: @Sendable (Int) -> LiveView = { steps in LiveView(title: title, totalSteps: steps) }
        let run = SupervisedRun(
            config: settings, log: Console.logger, versions: Version.record, view: draws ? makeView : nil)
        let (outcome, wasInterrupted) = try await Interruptible.run { onStart in try await run.run(onStart: onStart) }
        try RunConclusion(folder: run.folder, outcome: outcome).say()
        if outcome.wasStopped, wasInterrupted { throw ExitCode(130) }
    }
}
