import ArgumentParser
import Checkpoints
import Workers

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what a model folder is, what works and what does not, and what memory it takes.",
        discussion: """
            Only headers and small files are read, never weights. A broken folder is described as far as it goes; the exit
            code is 2 when something keeps the model from running.

            EXAMPLES
              fledge inspect models/smollm2-135m-instruct
              fledge inspect DIR --tokens 8192 --sequences 128 --json
            """)

    @Argument(help: "A Hugging Face folder or a .gguf file.", completion: .directory)
    var model: String

    @Option(help: "Tokens of a sequence, for the estimates of memory.")
    var tokens = 2048

    @Option(help: "Sequences that are sampled at once.")
    var sequences = 64

    @Option(help: "Tokens of a training micro-batch.")
    var microBatchTokens = 8192

    @Option(help: "The rank of LoRA's adapters.")
    var rank = 16

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        for (name, value) in [
            ("tokens", tokens), ("sequences", sequences), ("micro-batch-tokens", microBatchTokens), ("rank", rank),
        ] where value < 1 || value > 1 << 30 {
            throw ValidationError("--\(name) \(value) is not from 1 to \(1 << 30)")
        }
    }

    func run() throws {
        var workload = MemoryEstimate.Workload()
        (workload.tokens, workload.sequences) = (tokens, sequences)
        (workload.microBatchTokens, workload.rank) = (microBatchTokens, rank)
        let inspection = ModelInspector.inspect(model, workload: workload)
        Console.say(json ? inspection.json.text() : inspection.report)
        if !inspection.isUsable { throw ExitCode(2) }
    }
}
