import ArgumentParser
import Telemetry
import TensorCore
import Workers

struct RolloutBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollout", abstract: "Tokens a second of generation at full size, beside the machine's limit.",
        discussion: """
            The model is made in memory with random weights: no files are needed. Each case generates exactly OUT tokens for each
            of PROMPTS prompts of IN random tokens at temperature 1; the clock is over the whole call, prefill included.

            EXAMPLES
              fledge bench rollout --shape qwen2.5-0.5b --cases 256x256x1024,64x1024x2048
              fledge bench rollout --shape smollm2-135m --cases 48x48x64 --device cpu --json
            """)

    @Option(help: "The model: \(BenchmarkShape.names.joined(separator: ", ")).")
    var shape: String

    @Option(help: "Where the weights come from: random.")
    var weights = "random"

    @Option(help: "PROMPTSxINxOUT, several separated by commas.")
    var cases: String

    @OptionGroup var place: DeviceOptions

    @Option(help: "Answers of each prompt.")
    var samples = 1

    @Option(help: "Tokens at the beginning that all prompts have in common.")
    var sharedPrefix = 0

    @Option(help: "What runs first and does not count: none, small (8 tokens of the case) or same.")
    var warmup = "small"

    @Option(help: "Runs of each case that count; the fastest gives the rate.")
    var repeats = 1

    @Option(help: "Decides weights, prompts and draws.")
    var seed: UInt64 = 0

    @Option(help: "CPU threads.")
    var threads: Int?

    @Option(help: "Sequences that decode at a time; by default all of a case.")
    var maxNumSeqs: Int?

    @Option(help: "Tokens of one step's prefill.")
    var maxNumBatchedTokens: Int?

    @Flag(help: "Launch each kernel by itself.")
    var noCudaGraphs = false

    @Flag(help: "Keep prompts' blocks for later requests that begin alike.")
    var prefixCaching = false

    @Option(help: "The share of the device's memory that the engine may fill.")
    var gpuMemoryUtilization: Double?

    @Option(help: "Tokens of a block of the cache.")
    var blockSize: Int?

    @Option(help: "How keys and values are stored: auto (as --dtype) or fp8_e4m3; fp8 for short.")
    var kvCacheDtype = "auto"

    @Flag(help: "Run each case once more and tell where its time goes.")
    var profile = false

    @Option(help: "With --profile: only so many steps from the middle of the answers.")
    var profileSteps: Int?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if BenchmarkShape.known[shape] == nil {
            throw ValidationError(
                "--shape '\(shape)' is not known; known are \(BenchmarkShape.names.joined(separator: ", "))")
        }
        if weights != "random" { throw ValidationError("--weights '\(weights)' is not random") }
        if !["auto", "fp8", "fp8_e4m3"].contains(kvCacheDtype) {
            throw ValidationError("--kv-cache-dtype '\(kvCacheDtype)' is not auto or fp8_e4m3")
        }
        if RolloutBenchmark.WarmUp(rawValue: warmup) == nil {
            throw ValidationError("--warmup '\(warmup)' is not none, small or same")
        }
        for (name, value) in [
            ("--samples", samples), ("--repeats", repeats), ("--threads", threads ?? 1),
            ("--max-num-seqs", maxNumSeqs ?? 1), ("--max-num-batched-tokens", maxNumBatchedTokens ?? 1),
            ("--block-size", blockSize ?? 1),
            ("--profile-steps", profileSteps ?? 1),
        ] where value < 1 { throw ValidationError("\(name) \(value) is less than 1") }
        _ = try parsedCases()
    }

    private func parsedCases() throws -> [RolloutCase] {
        try cases.split(separator: ",", omittingEmptySubsequences: false).map { text in
            guard let work = RolloutCase(String(text)) else {
                throw ValidationError("--cases: '\(text)' is not PROMPTSxINxOUT, such as 256x256x1024")
            }
            return work
        }
    }

    private func settings() throws -> RolloutBenchmark.Settings {
        var settings = RolloutBenchmark.Settings(cases: try parsedCases())
        settings.samples = samples
        settings.sharedPrefix = sharedPrefix
        settings.warmUp = RolloutBenchmark.WarmUp(rawValue: warmup) ?? .small
        settings.repeats = repeats
        settings.seed = seed
        if profile || profileSteps != nil { settings.profile = profileSteps.map { .steps($0) } ?? .call }
        settings.engine.maxNumSeqs = maxNumSeqs
        settings.engine.maxNumBatchedTokens = maxNumBatchedTokens
        settings.engine.cudaGraphs = !noCudaGraphs
        settings.engine.prefixCaching = prefixCaching
        settings.engine.gpuMemoryUtilization = gpuMemoryUtilization
        settings.engine.blockSize = blockSize
        settings.engine.cacheDType = kvCacheDtype == "auto" ? nil : .float8e4m3
        return settings
    }

    func run() throws {
        try Failures.reported {
            guard let known = BenchmarkShape.known[shape] else { return }
            if let threads { Torch.threadCount = threads }
            let (device, type) = try place.open()
            let settings = try settings()
            let report = try RolloutBenchmark.run(known, dtype: type, device: device, settings: settings)
            let text = RolloutReport(shape: shape, device: device, dtype: type, settings: settings, report: report)
            Console.say(try json ? text.json() : text.table())
        }
    }
}
