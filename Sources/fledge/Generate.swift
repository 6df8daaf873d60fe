import ArgumentParser
import ChatTemplates
import Flow
import Foundation
import TensorCore
import Workers

/// Where a command computes, and with which template it talks.
struct ComputeOptions: ParsableArguments {
    @OptionGroup var place: DeviceOptions

    @Option(help: "A folder with a LoRA adapter in PEFT's format.", completion: .directory)
    var adapter: String?

    @Option(help: "A Jinja file in place of the model's own chat template.", completion: .file())
    var chatTemplate: String?

    func plan(model: String) throws -> PolicyWorker.Plan {
        let (device, type) = try place.open()
        var plan = PolicyWorker.Plan(modelPath: model, dtype: type, device: device)
        plan.templatePath = chatTemplate
        plan.adapter = adapter.map { .folder($0, seed: 0) }
        return plan
    }
}

/// Where a command finds its model and computes.
struct ModelOptions: ParsableArguments {
    @Option(help: "A Hugging Face folder or a .gguf file.", completion: .directory)
    var model: String

    @OptionGroup var compute: ComputeOptions

    var device: String { compute.place.device }

    func plan() throws -> PolicyWorker.Plan { try compute.plan(model: model) }
}

/// How a command samples.
struct SamplingOptions: ParsableArguments {
    @Option(help: "The most new tokens.")
    var maxTokens = 256

    @Option(help: "0 is greedy. By default, as for the next four, what generation_config.json says, else 0.")
    var temperature: Double?

    @Option(help: "Sample among the k likeliest; 0 for all.")
    var topK: Int?

    @Option(help: "Sample among the likeliest that make up this probability.")
    var topP: Double?

    @Option(help: "Sample among tokens at least this likely, relative to the likeliest.")
    var minP: Double?

    @Option(help: "Above 1, tokens that prompt or answer hold become less likely; 1 for none.")
    var repetitionPenalty: Double?

    @Option(help: "From -2 to 2: taken off the logits of tokens that the answer holds.")
    var presencePenalty = 0.0

    @Option(help: "From -2 to 2: taken off them as many times as it holds them.")
    var frequencyPenalty = 0.0

    @Option(help: "No answer ends before it has so many tokens.")
    var minTokens = 0

    @Option(help: "Decides every draw.")
    var seed: UInt64 = 0

    func validate() throws {
        if maxTokens < 1 { throw ValidationError("--max-tokens must be at least 1") }
        if !(0...maxTokens).contains(minTokens) {
            throw ValidationError("--min-tokens must be from 0 to --max-tokens, which is \(maxTokens)")
        }
    }

    /// What was left open, from the model's `generation_config.json`; says so.
    private func filled(for model: String) throws -> SamplingDefaults {
        let filled = SamplingDefaults(
            temperature: temperature, topK: topK, topP: topP, minP: minP, repetitionPenalty: repetitionPenalty,
            file: try SamplingDefaults.file(ofModelAt: model))
        if !filled.taken.isEmpty {
            Console.note("by the model's generation_config.json: \(filled.taken.joined(separator: ", "))")
        }
        return filled
    }

    func settings(for model: String) throws -> RolloutRequestSettings {
        let filled = try filled(for: model)
        return RolloutRequestSettings(
            n: 1, temperature: filled.temperature, topK: filled.topK, topP: filled.topP, minP: filled.minP,
            repetitionPenalty: filled.repetitionPenalty, presencePenalty: presencePenalty,
            frequencyPenalty: frequencyPenalty, minTokens: minTokens, maxTokens: maxTokens, seed: seed)
    }

    func batch(for model: String) throws -> BatchSampling {
        let filled = try filled(for: model)
        var batch = BatchSampling()
        batch.temperature = filled.temperature
        batch.topK = filled.topK
        batch.topP = filled.topP
        batch.minP = filled.minP
        batch.repetitionPenalty = filled.repetitionPenalty
        batch.presencePenalty = presencePenalty
        batch.frequencyPenalty = frequencyPenalty
        batch.minTokens = minTokens
        batch.maxTokens = maxTokens
        batch.seed = seed
        return batch
    }
}

struct Generate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Let a model answer, token by token; or sample a file of prompts into another.",
        discussion: """
            EXAMPLES
              fledge generate --model models/smollm2-135m-instruct --chat "Tell me a joke."
              fledge generate --model model.gguf --prompt "Once upon a time" --temperature 0.8 --seed 3
              fledge generate --model DIR --chat            (a conversation, line by line, from standard input)
              fledge generate --model DIR --input prompts.jsonl --output answers.jsonl --n 4 --temperature 1
            A line of --input has `prompt`, `messages` or `prompt_token_ids`, and may have an `id` and its own sampling
            settings. The same command goes on with what an earlier one left.
            """)

    @OptionGroup var options: ModelOptions

    @Option(help: "Plain text to go on from.")
    var prompt: String?

    @Flag(help: "Talk through the chat template: to the text given, or line by line from standard input.")
    var chat = false

    @Argument(help: "What to say to the model with --chat.")
    var message: String?

    @Option(help: "A system turn for --chat.")
    var system: String?

    @OptionGroup var sampling: SamplingOptions

    @OptionGroup(title: "Files") var batch: BatchOptions

    func validate() throws {
        if batch.isBatch {
            if prompt != nil || message != nil {
                throw ValidationError("--input FILE goes without --prompt and without a message")
            }
            return
        }
        guard chat != (prompt != nil) else {
            throw ValidationError("give one of --prompt TEXT, --chat and --input FILE")
        }
        if prompt != nil, message != nil { throw ValidationError("a message goes with --chat, not with --prompt") }
    }

    func run() async throws {
        try await Failures.reported {
            if let input = batch.input, let output = batch.output { return try await runBatch(input, output) }
            let worker = PolicyWorker(try options.plan())
            let settings = try sampling.settings(for: options.model)
            let text = try await worker.load()
            if let prompt {
                _ = try await answer(worker, text.encode(prompt), settings)
                return
            }
            var turns: [ChatMessage] = system.map { [.system($0)] } ?? []
            if let message {
                _ = try await answer(worker, text.encode(turns + [.user(message)]), settings)
                return
            }
            while let line = readLine(), !line.isEmpty {
                turns.append(.user(line))
                turns.append(.assistant(try await answer(worker, text.encode(turns), settings)))
            }
        }
    }

    private func answer(
        _ worker: PolicyWorker, _ prompt: [Int32], _ settings: RolloutRequestSettings
    ) async throws -> String {
        let collected = Collected()
        let clock = ContinuousClock(), start = clock.now
        let answer = try await worker.stream(prompt, settings) { piece in
            collected.append(piece)
            Console.stream(piece)
            return true
        }
        Console.stream("\n")
        Console.note(Self.counts(answer, seconds: (clock.now - start) / .seconds(1)))
        return collected.text
    }

    /// `[12 prompt tokens, 34 new, 56.7 tokens/s]`
    static func counts(_ answer: StreamedAnswer, seconds: Double) -> String {
        "[\(answer.promptTokens) prompt tokens, \(answer.tokens.count) new, \(rate(answer, seconds: seconds)) tokens/s]"
    }

    static func rate(_ answer: StreamedAnswer, seconds: Double) -> Double {
        (Double(answer.tokens.count) / max(seconds, 1e-9) * 10).rounded() / 10
    }
}
