import ArgumentParser
import Foundation
import Models
import TensorCore
import Workers

struct QuantizationBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quantization",
        abstract: "What sampling from quantised weights costs in quality and gains in speed, on a text of yours.",
        discussion: """
            Each piece of the text is read twice, by the weights and by their quantised copies. Printed are the mean and the largest
            difference of the text's log-probabilities, the mean KL divergence of the next-token distributions, the share of
            positions with the same most likely token, both perplexities, and tokens a second of generation at each batch size.

            EXAMPLES
              fledge bench quantization --model models/smollm2-135m-instruct --text docs/rollout.md --scheme int4
            """)

    @OptionGroup var options: ModelOptions
    @Option(help: "A file of real text, UTF-8.", completion: .file()) var text: String
    @Option(help: "int8 (one scale an output) or int4 (groups of --group inputs).") var scheme = "int8"
    @Option(help: "With int4: inputs that share a scale, a multiple of 32.") var group = 128
    @Option(help: "The most tokens of the text.") var tokens = 8192
    @Option(help: "Tokens of a piece.") var length = 512
    @Option(help: "Batch sizes of the speeds.") var rows: [Int] = [1, 8, 48]
    @Option(help: "New tokens of an answer.") var newTokens = 64
    @Option(help: "CPU threads.") var threads: Int?

    func validate() throws {
        if !["int8", "int4"].contains(scheme) { throw ValidationError("--scheme '\(scheme)' is not int8 or int4") }
        if group < 32 || group % 32 != 0 { throw ValidationError("--group \(group) is no multiple of 32") }
        if rows.contains(where: { $0 < 1 }) || newTokens < 1 {
            throw ValidationError("--rows and --new-tokens must be 1 or more")
        }
    }

    func run() async throws {
        try await Failures.reported {
            if let threads { Torch.threadCount = threads }
            guard let content = try? String(contentsOfFile: text, encoding: .utf8) else {
                throw ValidationError("--text \(text) cannot be read as UTF-8 text")
            }
            let result = try await QuantizationBenchmark.run(
                options.plan(), scheme: scheme == "int8" ? .int8PerChannel : .int4(group: group), text: content,
                tokens: tokens, length: length, rows: rows, newTokens: newTokens)
            let loss = result.loss
            func number(_ value: Double) -> BenchReport.Entry { .number(BenchReport.rounded(value, 1e6)) }
            BenchReport.print([
                ("case", .text("quantization")), ("scheme", .text(scheme)),
                ("group", .int(scheme == "int4" ? group : 0)), ("device", .text(options.device)),
                ("dtype", .text(result.dtype)), ("threads", .int(Torch.threadCount)), ("tokens", .int(loss.tokens)),
                ("mean_log_prob_difference", number(loss.meanLogProbDifference)),
                ("max_log_prob_difference", number(loss.maxLogProbDifference)),
                ("mean_kl", number(loss.meanDivergence)), ("same_choice", number(loss.agreement)),
                ("perplexity", number(loss.perplexity)), ("quantized_perplexity", number(loss.quantizedPerplexity)),
                ("weight_mib", .int(result.weightBytes >> 20)), ("copy_mib", .int(result.copyBytes >> 20)),
                ("quantize_seconds", number(result.seconds)),
                ("rows", .list(result.speeds.map { Double($0.rows) })),
                ("tokens_per_second", .list(result.speeds.map { BenchReport.rounded($0.full, 10) })),
                ("quantized_tokens_per_second", .list(result.speeds.map { BenchReport.rounded($0.quantized, 10) })),
            ])
        }
    }
}
