import ArgumentParser
import Cluster
import Config
import Flow
import Foundation
import Logging
import Telemetry
import Workers

struct Train: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train a model by reinforcement learning, as a YAML file says.",
        discussion: """
            Every setting can be overridden by key=value. A run that was stopped or killed goes on where its last
            checkpoint was when the same command is given again. Ctrl-C finishes the step and saves; a second one ends at once.

            EXAMPLES
              fledge train recipes/quickstart.yaml
              fledge train recipes/quickstart.yaml device=cuda model.dtype=bfloat16
              fledge train my.yaml trainer.default_local_dir=runs/try2 trainer.resume_mode=disable
            All settings with their defaults: recipes/example.yaml.
            """)

    @Argument(help: "The YAML file.", completion: .file(extensions: ["yaml", "yml"]))
    var config: String

    @Argument(help: ArgumentHelp("Settings to override.", valueName: "key=value"))
    var overrides: [String] = []

    func run() async throws {
        let settings = try Failures.reported {
            try RunConfig(contentsOf: URL(fileURLWithPath: config), overrides: overrides, names: TrainingRun.knownNames)
        }
        try await Failures.reported {
            let ranks = try RankedTraining(settings)
            if ranks.speaks { for warning in settings.warnings { Console.note("warning: \(warning)") } }
            try await ranks.run { group, samplers in try await Self.train(settings, group, samplers) }
        }
    }

    private static func train(
        _ settings: RunConfig, _ ranks: WorkerGroup<RankWorker>?, _ samplers: RankGang?
    ) async throws -> Int32 {
        let draws = settings.trainer.logger.contains(.console)
        let title = "\(settings.experimentName): \(settings.model.path)"
        let makeView: @Sendable (Int) -> LiveView = { steps in LiveView(title: title, totalSteps: steps) }
        let run = TrainingRun(
            config: settings, log: Console.logger, versions: Version.record,
            view: draws ? makeView : nil, ranks: ranks, samplers: samplers)
        let (outcome, wasInterrupted) = try await Interruptible.run { onStart in try await run.run(onStart: onStart) }
        try RunConclusion(folder: run.folder, outcome: outcome).say()
        return outcome.wasStopped && wasInterrupted ? 130 : 0
    }
}
