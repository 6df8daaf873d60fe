import ArgumentParser
import Checkpoints
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
            It is there whole or not at all, and nothing is overwritten.

            EXAMPLES
              fledge export --run runs/quickstart --to exported
              fledge export --model model.gguf --to folder --dtype bfloat16 --max-shard-size 2GB
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

    @Option(
        help: "float32, bfloat16, float16, or auto: as the model is stored (--run: model.dtype); float32 for GGUF.")
    var dtype = "auto"

    @Option(help: "The most bytes of tensors in a file: 5GB, 500MB, 100000.")
    var maxShardSize = "5GB"

    @Option(help: "With --model: a folder with a LoRA adapter in PEFT's format.", completion: .directory)
    var adapter: String?

    @Flag(help: "Add the LoRA adapter to the weights and write the whole model.")
    var merge = false

    func validate() throws {
        if (run == nil) == (model == nil) { throw ValidationError("give one of --run and --model") }
        if adapter != nil, model == nil { throw ValidationError("--adapter goes with --model") }
        if dtype != "auto", Self.types[dtype] == nil {
            throw ValidationError("--dtype '\(dtype)' is not auto, float32, bfloat16 or float16")
        }
        if ByteSize.parse(maxShardSize) == nil {
            throw ValidationError("--max-shard-size '\(maxShardSize)' is not a size such as 5GB, 500MB or 100000")
        }
    }

    private static let types: [String: DType] = ["float32": .float32, "bfloat16": .bfloat16, "float16": .float16]

    func run() async throws {
        try await Failures.reported {
            let folder = run.map { RunFolder($0) }
            let path: String, stored: DType
            if let folder {
                let recorded = try RecordedRun(folder)
                path = recorded.model.path
                stored = recorded.model.dtype == .bfloat16 ? .bfloat16 : .float32
                if case .supervised(let config) = recorded, config.kind == .rewardModel {
                    return try await rewardModel(config, folder, Self.types[dtype] ?? stored)
                }
            } else {
                path = model ?? ""
                stored = try dtype == "auto" ? ModelSource.open(path).mainType ?? .float32 : .float32
            }
            let type = Self.types[dtype] ?? (Self.types.values.contains(stored) ? stored : .float32)
            var plan = PolicyWorker.Plan(modelPath: path, dtype: type, device: .cpu)
            plan.adapter = adapter.map { .folder($0, seed: 0) }
            let worker = PolicyWorker(plan)
            try await worker.load()
            if let folder { try await worker.loadWeights(checkpoints: folder.checkpoints) }
            let summary = try await worker.adapterSummary()
            if merge, summary == nil {
                throw WorkerError(.badSetting, "--merge: \(run ?? path) has no adapter; leave --merge out")
            }
            try await worker.export(
                to: to, merging: merge, maxShardBytes: ByteSize.parse(maxShardSize) ?? .max)
            Console.say("wrote \(summary != nil && !merge ? "the adapter to " : "")\(to) (\(type))")
        }
    }

    /// A reward model's head is trained whole beside an adapter, which PEFT's format has no place for here: it is written merged.
    private func rewardModel(_ config: SupervisedConfig, _ folder: RunFolder, _ type: DType) async throws {
        if config.model.usesLoRA, !merge {
            throw WorkerError(
                .badSetting,
                "\(folder.path) is a reward model with an adapter, whose head is trained whole: give --merge for the whole model"
            )
        }
        try await SupervisedExport.write(
            config, checkpoints: folder.checkpoints, dtype: type, to: to,
            maxShardBytes: ByteSize.parse(maxShardSize) ?? .max)
        Console.say("wrote \(to) (\(type))")
    }
}

/// A number of bytes as people write it; units are powers of ten, as `transformers` has them.
enum ByteSize {
    static func parse(_ text: String) -> Int? {
        let upper = text.uppercased()
        for (unit, factor) in [("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("", 1)]
        where upper.hasSuffix(unit) {
            guard let number = Int(upper.dropLast(unit.count)), number > 0 else { return nil }
            let (bytes, overflow) = number.multipliedReportingOverflow(by: factor)
            return overflow ? nil : bytes
        }
        return nil
    }
}
