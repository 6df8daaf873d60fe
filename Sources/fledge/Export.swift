import ArgumentParser
import Config
import Foundation
import TensorCore
import Telemetry
import Workers

struct Export: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a model as a Hugging Face folder.",
        discussion: """
            The folder holds config.json, safetensors and the tokenizer's files; `transformers` loads it.

            EXAMPLES
              fledge export --run runs/quickstart --to exported
              fledge export --model model.gguf --to folder --dtype bfloat16
            """)

    @Option(help: "The folder of a run: its newest checkpoint is exported.", completion: .directory)
    var run: String?

    @Option(help: "A Hugging Face folder or a .gguf file.", completion: .directory)
    var model: String?

    @Option(help: "The folder to write; it must not exist, or be empty.")
    var to: String

    @Option(help: "float32 or bfloat16.")
    var dtype = "float32"

    func validate() throws {
        if (run == nil) == (model == nil) { throw ValidationError("give one of --run and --model") }
        if !["float32", "bfloat16"].contains(dtype) {
            throw ValidationError("--dtype '\(dtype)' is not float32 or bfloat16")
        }
    }

    func run() async throws {
        try await Failures.reported {
            let type: DType = dtype == "bfloat16" ? .bfloat16 : .float32
            let folder = run.map { RunFolder($0) }
            let path =
                if let folder {
                    try RunConfig(
                        contentsOf: URL(fileURLWithPath: folder.config), names: TrainingRun.knownNames
                    ).model.path
                } else { model ?? "" }
            let worker = PolicyWorker(PolicyWorker.Plan(modelPath: path, dtype: type, device: .cpu))
            try await worker.load()
            if let folder { try await worker.loadWeights(checkpoints: folder.checkpoints) }
            try await worker.export(to: to)
            Console.say("wrote \(to)")
        }
    }
}
