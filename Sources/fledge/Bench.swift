import ArgumentParser
import Models
import Telemetry
import TensorCore
import Workers

struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure generation, training, loading and tokenizers; prints JSON.",
        discussion: """
            EXAMPLES
              fledge bench generate --model models/smollm2-135m-instruct --prompts 6 --samples 8
              fledge bench train --model models/smollm2-135m-instruct --sequences 32 --length 128
              fledge bench train --shape qwen2.5-0.5b --rows 16 --seq 4096 --profile
              fledge bench load --shape qwen2-7b
              fledge bench tokenizer --tokenizer models/smollm2 --text corpus.txt --threads 8
              fledge bench collectives --devices 2
              fledge bench controller --workers 8
            A comparison with transformers in one run: scripts/peers/compare; with tokenizers: scripts/peers/tokenizers.
            """,
        subcommands: [
            GenerateBench.self, RolloutBench.self, TrainBench.self, LoadBench.self, TokenizerBench.self,
            QuantizationBench.self, StepBench.self, CollectivesBench.self, ReshardBench.self, ControllerBench.self,
        ])
}

/// One measurement's JSON.
enum BenchReport {
    static func print(_ entries: [(String, Entry)]) {
        var writer = JSONWriter(style: .pretty)
        writer.object { object in
            for (name, entry) in entries {
                object.key(name)
                switch entry {
                case .text(let text): object.value(text)
                case .int(let number): object.value(number)
                case .number(let number): object.value(number)
                case .list(let numbers): object.array { list in for number in numbers { list.value(number) } }
                }
            }
        }
        Console.say(writer.text)
    }

    enum Entry {
        case text(String)
        case int(Int)
        case number(Double)
        case list([Double])
    }

    static func rounded(_ value: Double, _ digits: Double = 1e4) -> Double { (value * digits).rounded() / digits }
}

struct GenerateBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate", abstract: "Tokens a second of batched generation from one model.")

    @OptionGroup var options: ModelOptions
    @Option(help: "Prompts of random tokens.") var prompts = 6
    @Option(help: "Samples of each.") var samples = 8
    @Option(help: "Tokens of a prompt.") var promptTokens = 64
    @Option(help: "New tokens of a sample; none stops earlier.") var newTokens = 64
    @Option(help: "Runs after a first that does not count.") var repeats = 3
    @Option(help: "CPU threads.") var threads: Int?

    func run() async throws {
        try await Failures.reported {
            if let threads { Torch.threadCount = threads }
            let result = try await Benchmarks.generation(
                options.plan(), prompts: prompts, samples: samples, promptTokens: promptTokens, newTokens: newTokens,
                repeats: repeats)
            BenchReport.print([
                ("case", .text("generate")), ("device", .text(options.device)),
                ("dtype", .text(result.dtype)), ("threads", .int(Torch.threadCount)),
                ("samples", .int(prompts * samples)), ("prompt_tokens", .int(promptTokens)),
                ("new_tokens", .int(newTokens)), ("seconds", .list(result.seconds.map { BenchReport.rounded($0) })),
                ("tokens_per_second", .number(BenchReport.rounded(result.best(of: prompts * samples * newTokens)))),
                ("peak_memory_mib", .int(result.peakBytes >> 20)),
            ])
        }
    }
}
