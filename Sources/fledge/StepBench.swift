import ArgumentParser
import Models
import Telemetry
import TensorCore
import Workers

struct StepBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "step", abstract: "Seconds of a whole GRPO step at full size, phase by phase.",
        discussion: """
            The model is made in memory with random weights: no files are needed. Every answer has exactly OUT tokens. The phases are
            generation, freeing its cache, log-probabilities, the update (forward, backward, AdamW) and taking the cache again.

            EXAMPLES
              fledge bench step --shape qwen2.5-0.5b --prompts 32 --samples 8 --input 256 --output 1024
            """)

    @Option(help: "The model: \(BenchmarkShape.names.joined(separator: ", ")).")
    var shape: String

    @Option(help: "Prompts of a step.") var prompts = 32
    @Option(help: "Answers of each.") var samples = 8
    @Option(help: "Tokens of a prompt.") var input = 256
    @Option(help: "Tokens of an answer.") var output = 1024
    @Option(help: "Token budget of a micro-batch.") var microBatchTokens = 16384
    @Option(help: "Rows of logits at a time; by default what the device likes best.") var logitsChunk: Int?
    @OptionGroup var kept: CheckpointingOptions
    @Option(help: "Of the optimizer: bf16 (no masters), float32 (masters too) or int8 (moments, with masters).")
    var states = "float32"
    @Flag(help: "Take the sampler's log-probabilities as the old ones, as one update a batch allows.")
    var noLogProbs = false
    @Flag(help: "Compute every prompt anew for each of its answers.") var noSharedPrefixes = false
    @Flag(help: "Keep the cache of keys and values during the update.") var keepCache = false
    @OptionGroup var place: DeviceOptions
    @Option(help: "Steps that count, after one that does not.") var steps = 3
    @Option(help: "Decides weights, prompts and draws.") var seed: UInt64 = 0
    @Option(help: "CPU threads.") var threads: Int?
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        if BenchmarkShape.known[shape] == nil {
            throw ValidationError(
                "--shape '\(shape)' is not known; known are \(BenchmarkShape.names.joined(separator: ", "))")
        }
        _ = try kept.choice
        let chosen: TrainingBenchmark.States = try TrainBench.choice("--states", states)
        if chosen == .none { throw ValidationError("--states none takes no step") }
        for (name, value) in [
            ("--prompts", prompts), ("--samples", samples), ("--input", input), ("--output", output),
            ("--micro-batch-tokens", microBatchTokens), ("--logits-chunk", logitsChunk ?? 1), ("--steps", steps),
            ("--threads", threads ?? 1),
        ] where value < 1 { throw ValidationError("\(name) \(value) is less than 1") }
    }

    func run() throws {
        try Failures.reported {
            guard let known = BenchmarkShape.known[shape] else { return }
            if let threads { Torch.threadCount = threads }
            let (device, type) = try place.open()
            var settings = StepBenchmark.Settings()
            settings.prompts = prompts
            settings.samples = samples
            settings.input = input
            settings.output = output
            settings.microBatchTokens = microBatchTokens
            settings.logitsChunk = logitsChunk
            settings.checkpointing = try kept.choice ?? .none
            settings.states = try TrainBench.choice("--states", states)
            settings.recomputesLogProbs = !noLogProbs
            settings.sharesPrefixes = !noSharedPrefixes
            settings.freesCache = !keepCache
            settings.steps = steps
            settings.seed = seed
            let report = try StepBenchmark.run(known, dtype: type, device: device, settings: settings)
            Console.say(json ? text(report, device, type, settings) : table(report))
        }
    }

    private func text(
        _ report: StepBenchmark.Report, _ device: Device, _ dtype: DType, _ settings: StepBenchmark.Settings
    ) -> String {
        var writer = JSONWriter(style: .pretty)
        let median = report.median
        writer.object { object in
            object.field("case", "step")
            object.field("shape", shape)
            object.field("weights", "random")
            object.field("device", "\(device)")
            object.field("dtype", "\(dtype)")
            object.field("states", states)
            object.field("checkpointing", "\(settings.checkpointing)")
            for (name, value) in [
                ("prompts", prompts), ("samples", samples), ("input_tokens", input), ("output_tokens", output),
                ("micro_batch_tokens", microBatchTokens), ("sequence_tokens", report.sequenceTokens),
                ("computed_tokens", report.computedTokens), ("weight_bytes", report.weightBytes),
                ("kv_bytes", report.cacheBytes), ("peak_memory_bytes", report.peakBytes),
            ] { object.field(name, value) }
            object.field("step_seconds", BenchReport.rounded(median.total))
            object.key("all_step_seconds")
            object.array { list in for step in report.steps { list.value(BenchReport.rounded(step.total)) } }
            object.key("phases")
            object.object { phases in
                for phase in StepBenchmark.Phase.allCases {
                    guard let seconds = median.seconds[phase] else { continue }
                    phases.key(phase.rawValue)
                    phases.object { one in
                        one.field("seconds", BenchReport.rounded(seconds))
                        one.field("share", BenchReport.rounded(seconds / median.total))
                    }
                }
            }
            object.field("rollout_logprobs_diff_mean", median.meanDifference)
            object.field("rollout_logprobs_diff_max", median.greatestDifference)
            object.field("grad_norm", median.gradNorm)
        }
        return writer.text
    }

    private func table(_ report: StepBenchmark.Report) -> String {
        let median = report.median
        var table = TextTable(["phase", "seconds", "share"])
        for phase in StepBenchmark.Phase.allCases {
            guard let seconds = median.seconds[phase] else { continue }
            table.add([
                phase.rawValue, TextTable.number(seconds, 3), TextTable.number(seconds / median.total * 100, 1) + " %",
            ])
        }
        table.add(["step", TextTable.number(median.total, 3), ""])
        return (table.lines + ["peak \(TextTable.number(Double(report.peakBytes) / 0x1p30, 2)) GiB"])
            .joined(separator: "\n")
    }
}
