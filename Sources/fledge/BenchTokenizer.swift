import ArgumentParser
import Foundation
import Workers

struct TokenizerBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenizer", abstract: "Loading, encoding, batch encoding and decoding of one tokenizer.")

    @Option(help: "Folder with the tokenizer's files.") var tokenizer: String
    @Option(help: "UTF-8 text to encode.") var text: String
    @Option(help: "Threads of the batch; the whole text is always encoded by one.") var threads = 1
    @Option(help: "Bytes of one document of the batch.") var documentBytes = 4096
    @Option(help: "Runs of each; the fastest counts.") var repeats = 3

    func validate() throws {
        guard threads > 0, documentBytes > 0, repeats > 0 else {
            throw ValidationError("--threads, --document-bytes and --repeats: expected numbers above 0")
        }
    }

    func run() throws {
        let result = try Failures.reported {
            try Benchmarks.tokenizer(
                folder: URL(fileURLWithPath: tokenizer, isDirectory: true), text: URL(fileURLWithPath: text),
                threads: threads, documentBytes: documentBytes, repeats: repeats)
        }
        func rate(_ seconds: Double) -> BenchReport.Entry {
            .number(BenchReport.rounded(Double(result.textBytes) / seconds / 1e6, 100))
        }
        BenchReport.print([
            ("case", .text("tokenizer")), ("kind", .text(result.kind)), ("vocabulary", .int(result.vocabulary)),
            ("text_bytes", .int(result.textBytes)), ("tokens", .int(result.tokens)),
            ("checksum", .text(String(result.checksum, radix: 16))),
            ("load_ms", .number(BenchReport.rounded(result.loadSeconds * 1e3, 10))),
            ("encode_mb_per_second", rate(result.encodeSeconds)),
            ("documents", .int(result.documents)), ("threads", .int(result.threads)),
            ("batch_mb_per_second", rate(result.batchSeconds)), ("decode_mb_per_second", rate(result.decodeSeconds)),
        ])
    }
}
