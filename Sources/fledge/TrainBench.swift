import ArgumentParser
import Models
import TensorCore
import Workers

struct TrainBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train", abstract: "Seconds of one training step: forward, backward, AdamW.",
        discussion: """
            With --shape the model is made in memory with random weights, no files needed, and trained on ROWS rows of SEQ random
            tokens, loss over every token but the first. Operations count as 6 N + 6 L S H D a token; what is computed again counts
            in "hfu" alone. With --prompt and --answer, ROWS prompts have --answers answers each.

            With --devices the command starts one process for each device, over NCCL or on the CPU Gloo. Each has ROWS rows of its own
            (with --tp each set of devices that shares matrices). --alone lets every device do the same with a whole model of its own
            first, and gives the rate together as a share of that.

            EXAMPLES
              fledge bench train --shape qwen2.5-0.5b --rows 16 --seq 4096 --json
              fledge bench train --shape qwen2-7b --rows 4 --prompt 1024 --answer 256 --answers 8 --json
              fledge bench train --shape qwen2-7b --devices 4 --alone --json
              fledge bench train --shape tiny --device cpu --devices 4 --rows 2 --seq 64 --tp 2 --json
              fledge bench train --model models/smollm2-135m-instruct --sequences 32 --length 128
            """)

    @Option(help: "A Hugging Face folder or a .gguf file.", completion: .directory)
    var model: String?

    @OptionGroup var compute: ComputeOptions

    @OptionGroup(title: "WITH --model") var loaded: LoadedOptions
    @OptionGroup(title: "WITH --shape") var shaped: ShapedOptions
    @OptionGroup(title: "WITH --shape AND SEVERAL DEVICES") var ranks: RankOptions

    @Option(help: "Token budget of a micro-batch; by default 4096 with --model, all at once with --shape.")
    var microBatchTokens: Int?
    @OptionGroup var kept: CheckpointingOptions
    @Option(help: "Rows of logits at a time; by default as many as suit the device.") var logitsChunk: Int?
    @Option(help: "CPU threads.") var threads: Int?

    /// What measures a model's real weights.
    struct LoadedOptions: ParsableArguments {
        @Option(help: "Sequences of random tokens.") var sequences = 32
        @Option(help: "Tokens of a sequence.") var length = 128
        @Option(help: "Steps after a first that does not count.") var repeats = 3
    }

    static func choice<Value: RawRepresentable & CaseIterable>(_ option: String, _ text: String) throws -> Value
    where Value.RawValue == String {
        if let value = Value(rawValue: text) { return value }
        let known = Value.allCases.map(\.rawValue).joined(separator: ", ")
        throw ValidationError("\(option) '\(text)' is none of \(known)")
    }

    func validate() throws {
        _ = try kept.choice
        if (model == nil) == (shaped.shape == nil) { throw ValidationError("give either --model or --shape") }
        if model != nil, ranks.areSeveral { throw ValidationError("--devices goes with --shape") }
        if ranks.areSeveral, !["auto", "cpu", "cuda"].contains(compute.device) {
            throw ValidationError("--device '\(compute.device)' with --devices is auto, cpu or cuda")
        }
        for (name, value) in [
            ("--micro-batch-tokens", microBatchTokens), ("--logits-chunk", logitsChunk), ("--threads", threads),
        ] where value.map({ $0 < 1 }) == true { throw ValidationError("\(name) \(value ?? 0) is less than 1") }
    }

    func dtype(on device: Device) throws -> DType {
        switch compute.dtype {
        case nil: return device.isCUDA ? .bfloat16 : .float32
        case "float32"?: return .float32
        case "bfloat16"?: return .bfloat16
        case let other?: throw ValidationError("--dtype '\(other)' is not float32 or bfloat16")
        }
    }

    func run() async throws {
        try await Failures.reported {
            if let threads { Torch.threadCount = threads }
            if let model { try await measure(model) } else { try await shaped.run(self) }
        }
    }

    private func measure(_ model: String) async throws {
        var plan = try compute.plan(model: model)
        plan.checkpointing = try kept.choice ?? .none
        let result = try await Benchmarks.training(
            plan, sequences: loaded.sequences, length: loaded.length, microBatchTokens: microBatchTokens ?? 4096,
            logitsChunk: logitsChunk, repeats: loaded.repeats)
        BenchReport.print([
            ("case", .text("train")), ("device", .text(compute.device)), ("dtype", .text(result.dtype)),
            ("threads", .int(Torch.threadCount)), ("sequences", .int(loaded.sequences)),
            ("length", .int(loaded.length)),
            ("seconds", .list(result.seconds.map { BenchReport.rounded($0) })),
            ("best_seconds", .number(BenchReport.rounded(result.seconds.min() ?? .nan))),
            ("tokens_per_second", .number(BenchReport.rounded(result.best(of: loaded.sequences * loaded.length)))),
            ("loss", .number(result.loss)), ("peak_memory_mib", .int(result.peakBytes >> 20)),
        ])
    }
}
