import ArgumentParser
import Foundation
import Fuzzing

@main
struct FledgeFuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fledge-fuzz",
        abstract: "Feed damaged files to one of Fledge's parsers and keep those that crash it, hang it or eat memory.",
        discussion: """
            TARGETS
              \(FuzzTargets.names.joined(separator: ", "))

            EXAMPLES
              fledge-fuzz safetensors --seconds 600 --corpus models
              fledge-fuzz tokenizer --input fuzz/tokenizer/hang-seed1-4711

            A seed and a corpus give the same inputs every time. Failures are kept in the output folder.
            """)

    @Argument(help: "The parser.")
    var target: String

    @Option(help: "How long to run.")
    var seconds = 60.0

    @Option(help: "Stop after so many inputs, counted from the first.")
    var count: Int?

    @Option(help: "Another seed gives other inputs.")
    var seed: UInt64 = 1

    @Option(
        help: "A real file, or a folder with some, to start from; may be repeated. Small built-in ones are always used."
    )
    var corpus: [String] = []

    @Option(help: "Leave files of the corpus out that are larger than this many bytes.")
    var largestFile = 1 << 20

    @Option(help: "Where failures and the summary go. (default: fuzz/TARGET)")
    var output: String?

    @Option(help: "Seconds that one input may take before it counts as a hang.")
    var deadline = 10.0

    @Option(
        name: .customLong("memory-mb"), help: "Memory that the parser may use beyond what the program has at the start."
    )
    var memoryMB = 1024

    @Option(name: .customLong("stack-kb"), help: "Stack of the parser's thread; 2048 is the least that threads get.")
    var stackKB = 2048

    @Option(help: "Run this one file, say what becomes of it, and end.")
    var input: String?

    @Option(help: .hidden)
    var worker: String?

    @Option(help: .hidden)
    var first = 0

    func run() throws {
        guard let parser = try FuzzTargets.named(target) else {
            throw ValidationError("unknown target '\(target)'; known are \(FuzzTargets.names.joined(separator: ", "))")
        }
        if let input {
            try System.limitMemory(memoryMB << 20)
            let start = System.now
            let bytes = try FileBytes.read(input)
            defer { print("\((System.now - start) / 1_000_000) ms, peak \(System.peakKiB / 1024) MB") }
            do {
                try parser.run(bytes)
                print("accepted")
            } catch let error as BrokenProperty {
                print("broken: \(error)")
                throw ExitCode.failure
            } catch {
                print("refused: \(type(of: error)): \(error)")
            }
            return
        }
        let run = FuzzRun(
            target: parser, seed: seed, corpus: try FuzzCorpus(for: parser, paths: corpus, largestFile: largestFile))
        if let worker {
            return try Worker(run: run, progressPath: worker, memoryMB: memoryMB)
                .work(from: first, to: count, seconds: seconds)
        }
        let settings = Supervisor.Settings(
            target: target, seed: seed, corpus: corpus, seconds: seconds, count: count, deadline: deadline,
            memoryMB: memoryMB, stackKB: stackKB, output: output ?? "fuzz/\(target)", largestFile: largestFile)
        let summary = try Supervisor(settings, run).fuzz { FileHandle.standardError.write(Data(($0 + "\n").utf8)) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let text = String(decoding: try encoder.encode(summary), as: UTF8.self) + "\n"
        try FileBytes.write(Array(text.utf8), to: settings.output + "/summary.json")
        print(text, terminator: "")
        if !summary.failures.isEmpty { throw ExitCode.failure }
    }
}
