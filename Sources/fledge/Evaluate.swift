import ArgumentParser
import Config
import Flow
import Foundation
import OrderedCollections
import Telemetry
import Workers

struct Evaluate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract: "Measure a model on a recipe's held-out prompts.",
        discussion: """
            Uses the recipe's data, reward and rollout.val_kwargs. With --run, the weights of a run's newest checkpoint are measured
            instead of the recipe's model.

            EXAMPLES
              fledge eval recipes/quickstart.yaml
              fledge eval --run runs/quickstart --json
            """)

    @Argument(help: "The YAML file; not needed with --run.", completion: .file(extensions: ["yaml", "yml"]))
    var config: String?

    @Argument(help: ArgumentHelp("Settings to override.", valueName: "key=value"))
    var overrides: [String] = []

    @Option(help: "The folder of a run.", completion: .directory)
    var run: String?

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: "Print this many answers.")
    var samples = 0

    func validate() throws {
        if config == nil, run == nil { throw ValidationError("give a YAML file or --run FOLDER") }
    }

    func run() async throws {
        try await Failures.reported {
            let folder = run.map { RunFolder($0) }
            // With --run alone, the first word may already be an override.
            var overrides = overrides
            var path = config
            if folder != nil, let first = config, first.contains("=") {
                overrides.insert(first, at: 0)
                path = nil
            }
            if path == nil, let folder, case .supervised(let run) = try RecordedRun(folder) {
                throw WorkerError(
                    .badSetting,
                    "\(folder.path) is a run of \(run.kind.command), which has no reward: name the recipe to measure by, as "
                        + "fledge eval recipes/quickstart.yaml --run \(folder.path)")
            }
            let settings = try RunConfig(
                contentsOf: URL(fileURLWithPath: path ?? folder?.config ?? ""), overrides: overrides,
                names: TrainingRun.knownNames)
            let evaluation = Evaluation(config: settings, log: Console.logger)
            let (metrics, answers) = try await evaluation.run(checkpoints: folder?.checkpoints)
            for answer in answers.prefix(samples) {
                Console.note("\(answer.prompt.text) → \(answer.text)  [\(answer.prompt.groundTruth)]")
            }
            if json {
                var writer = JSONWriter(style: .pretty)
                writer.object { object in
                    for (name, value) in metrics {
                        object.key(name.text)
                        object.value(value)
                    }
                }
                Console.say(writer.text)
            } else {
                for (name, value) in metrics { Console.say("\(name): \(value)") }
            }
        }
    }
}
