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
            The folder holds config.json, safetensors and the tokenizer's files; `transformers` loads it. Of a run that trained
            a LoRA adapter, or with --adapter, it holds the adapter alone in PEFT's format, or with --merge the whole model.

            EXAMPLES
              fledge export --run runs/quickstart --to exported
              fledge export --model model.gguf --to folder --dtype bfloat16
              fledge export --run runs/lora --to adapter
              fledge export --run runs/lora --merge --to whole
              fledge export --model DIR --adapter adapter --merge --to whole
            """)

    @Option(help: "The folder of a run: its newest checkpoint is exported.", completion: .directory)
    var run: String?

    @Option(help: "A Hugging Face folder or a .gguf file.", completion: .directory)
    var model: String?

    @Option(help: "The folder to write; it must not exist, or be empty.")
    var to: String

    @Option(help: "float32 or bfloat16.")
    var dtype = "float32"

    @Option(help: "With --model: a folder with a LoRA adapter in PEFT's format.", completion: .directory)
    var adapter: String?

    @Flag(help: "Add the LoRA adapter to the weights and write the whole model.")
    var merge = false

    func validate() throws {
        if (run == nil) == (model == nil) { throw ValidationError("give one of --run and --model") }
        if adapter != nil, model == nil { throw ValidationError("--adapter goes with --model") }
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
            var plan = PolicyWorker.Plan(modelPath: path, dtype: type, device: .cpu)
            plan.adapter = adapter.map { .folder($0, seed: 0) }
            let worker = PolicyWorker(plan)
            try await worker.load()
            if let folder { try await worker.loadWeights(checkpoints: folder.checkpoints) }
            let summary = try await worker.adapterSummary()
            if merge, summary == nil {
                throw WorkerError(.badSetting, "--merge: \(run ?? path) has no adapter; leave --merge out")
            }
            try await worker.export(to: to, merging: merge)
            Console.say(summary != nil && !merge ? "wrote the adapter to \(to)" : "wrote \(to)")
        }
    }
}
