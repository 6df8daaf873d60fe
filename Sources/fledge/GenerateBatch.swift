import ArgumentParser
import Foundation
import Telemetry
import Workers

/// `fledge generate --input FILE --output FILE`: its own options.
struct BatchOptions: ParsableArguments {
    @Option(
        help: "A file of prompts (JSON Lines; .parquet, .csv and .json too) to sample, one after the other.",
        completion: .file())
    var input: String?

    @Option(help: "With --input: the JSON Lines file to write, or to go on with.", completion: .file())
    var output: String?

    @Option(name: [.customShort("n"), .customLong("n")], help: "With --input: samples of each line.")
    var n: Int?

    @Option(help: "With --input: a text that ends a sample; may be given again.")
    var stop: [String] = []

    @Flag(help: "With --input: go on past the model's end tokens.")
    var ignoreEos = false

    @Flag(help: "With --input: write each token's log-probability.")
    var logprobs = false

    @Option(help: "With --input: the most samples that decode at a time (default 256).")
    var batch: Int?

    @Flag(help: "With --input: write lines in the input's order, not as they are finished.")
    var ordered = false

    @Option(
        help: "With --input: which members of a line to carry along: unknown (to generate; the default), all or none.",
        transform: BatchOptions.keep)
    var keep: BatchSettings.Keep?

    @Flag(help: "With --input: leave out lines that cannot be used, and count them.")
    var skipBad = false

    @Flag(help: "With --input: throw away what the output holds.")
    var overwrite = false

    @Flag(help: "With --input: print the summary as JSON.")
    var json = false

    var isBatch: Bool { input != nil }

    private static func keep(_ text: String) throws -> BatchSettings.Keep {
        guard let keep = BatchSettings.Keep(rawValue: text) else {
            throw ValidationError("'\(text)' is not unknown, all or none")
        }
        return keep
    }

    func validate() throws {
        if let input, output == nil {
            throw ValidationError("--input \(input) needs --output FILE")
        }
        if let batch, batch < 1 { throw ValidationError("--batch must be at least 1") }
        guard input == nil else { return }
        let given: [(name: String, isSet: Bool)] = [
            ("output", output != nil), ("n", n != nil), ("stop", !stop.isEmpty), ("ignore-eos", ignoreEos),
            ("logprobs", logprobs), ("batch", batch != nil), ("ordered", ordered), ("keep", keep != nil),
            ("skip-bad", skipBad), ("overwrite", overwrite), ("json", json),
        ]
        if let first = given.first(where: \.isSet) { throw ValidationError("--\(first.name) goes with --input FILE") }
    }
}

extension Generate {
    func runBatch(_ input: String, _ output: String) async throws {
        // From here on Ctrl-C asks: what is finished is kept.
        let interrupts = InterruptHandler()
        let stop = BatchJob.Stop()
        var settings = BatchSettings(input: input, output: output)
        settings.sampling = try sampling.batch(for: options.model)
        settings.sampling.n = batch.n ?? 1
        settings.sampling.stop = batch.stop
        settings.sampling.ignoresEndOfTurn = batch.ignoreEos
        settings.isChat = chat
        settings.system = system
        settings.logProbs = batch.logprobs
        settings.isOrdered = batch.ordered
        settings.keep = batch.keep ?? .unknown
        settings.skipsBad = batch.skipBad
        settings.overwrites = batch.overwrite
        var plan = try options.plan()
        plan.engine.maxRows = batch.batch ?? plan.engine.maxRows
        // Nothing trains beside it.
        plan.engine.memoryFraction = 0.85

        let line = ProgressLine(part: "lines", unit: "tokens")
        let observer = BatchJob.Observer {
            // A terminal that went away is no reason to stop.
            try? line.clear()
            Console.note($0)
        } progress: {
            try? line.show($0)
        }
        interrupts.onFirst {
            stop.request()
            observer.note("stopping; what is finished is kept (again to end at once)")
        }
        let summary: BatchJob.Summary
        do {
            summary = try await BatchJob(settings: settings, plan: plan).run(observer, stop: stop)
        } catch {
            try? line.clear()
            throw error
        }
        try? line.clear()
        let report = BatchReport(summary: summary, output: output)
        Console.note(report.text)
        if batch.json { Console.say(report.json) }
        if summary.wasStopped { throw ExitCode(130) }
    }
}

/// What a batch came to.
struct BatchReport {
    let summary: BatchJob.Summary
    let output: String

    private var rate: Double { (Double(summary.tokens) / max(summary.seconds, 1e-9) * 10).rounded() / 10 }

    var text: String {
        var parts = ["\(summary.done) of \(summary.lines) lines are in \(output)"]
        if summary.badLines > 0 { parts.append("\(summary.badLines) bad lines left out") }
        if summary.doneNow > 0 {
            let seconds = (summary.seconds * 10).rounded() / 10
            parts.append(
                "now \(summary.doneNow) lines, \(summary.samples) samples, \(summary.promptTokens) prompt tokens, "
                    + "\(summary.tokens) new in \(seconds) s (\(rate) tokens/s)")
        } else if !summary.wasStopped {
            parts.append("nothing was left to do")
        }
        if summary.wasStopped { parts.append("stopped: the same command goes on from there") }
        return parts.joined(separator: "; ")
    }

    var json: String {
        var writer = JSONWriter()
        writer.object { object in
            for (name, value) in [
                ("lines", summary.lines), ("bad_lines", summary.badLines), ("done", summary.done),
                ("done_now", summary.doneNow), ("samples", summary.samples),
                ("prompt_tokens", summary.promptTokens), ("tokens", summary.tokens),
            ] {
                object.key(name)
                object.value(value)
            }
            object.key("seconds")
            object.value(summary.seconds)
            object.key("tokens_per_second")
            object.value(rate)
            object.key("stopped")
            object.value(summary.wasStopped)
            object.key("output")
            object.value(output)
        }
        return writer.text
    }
}
