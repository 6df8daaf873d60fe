import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import Workers

/// `fledge data`: a look at files of prompts, and their conversion.
struct DataCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "data",
        abstract: "Look at files of prompts, or convert them.",
        discussion: """
            Reads .parquet, .jsonl, .json, .csv and .tsv, by patterns too ('data/*.parquet').

            EXAMPLES
              fledge data head train.parquet -n 3
              fledge data stats train.parquet --model models/smollm2-135m-instruct
              fledge data convert train.parquet train.jsonl
            """,
        subcommands: [Head.self, Stats.self, Convert.self, Arithmetic.self])

    struct Files: ParsableArguments {
        @Argument(help: "Files or patterns.", completion: .file())
        var files: [String]

        func expanded() throws -> [String] { try files.flatMap { try FilePattern.files($0) } }
    }

    static func columns(_ list: String?) -> [String]? { list?.split(separator: ",").map(String.init) }

    struct Head: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the first rows.")

        @OptionGroup var input: Files

        @Option(name: [.customShort("n"), .customLong("rows")], help: "How many rows.")
        var count = 5

        @Option(help: "Only these columns, with commas between them.")
        var columns: String?

        @Flag(help: "Print each row as a line of JSON, whole.")
        var json = false

        func validate() throws {
            if count < 1 { throw ValidationError("-n must be at least 1") }
        }

        func run() async throws {
            try Failures.reported {
                let wanted = DataCommand.columns(columns)
                var left = count
                for path in try input.expanded() where left > 0 {
                    try RecordReader(path: path).forEach(columns: wanted) { row, origin in
                        let shown = wanted.map { names in
                            JSONObject(names.compactMap { name in row[name].map { .init(name: name, value: $0) } })
                        }
                        DataReport.show(shown ?? row, origin: origin, json: json)
                        left -= 1
                        return left > 0
                    }
                }
            }
        }
    }

    struct Stats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Count rows, columns, sources and duplicates, and measure the prompts.",
            discussion: """
                Lengths are in characters (Unicode scalars) of the prompt's text; with --model also in tokens, as
                rendered by the model's chat template and encoded.
                """)

        @OptionGroup var input: Files

        @Option(help: "A Hugging Face folder or a .gguf file, for its tokenizer and template.", completion: .directory)
        var model: String?

        @Option(help: "The column that holds the prompt.")
        var promptKey = "prompt"

        @Option(help: "The column that says which data a row belongs to.")
        var sourceKey = "data_source"

        @Flag(help: "Print JSON.")
        var json = false

        func run() async throws {
            try Failures.reported {
                let paths = try input.expanded()
                var columns = PromptColumns()
                columns.prompt = promptKey
                columns.dataSource = sourceKey
                var count: (@Sendable (Prompt, RowOrigin) throws -> Int)?
                if let model {
                    let text = try TextProcessor(ModelSource.open(model))
                    count = { prompt, _ in try text.tokens(prompt).count }
                }
                let statistics = try RecordStatistics(paths: paths, columns: columns, tokenCount: count)
                let report = DataReport(
                    files: paths, statistics: statistics, promptKey: promptKey, sourceKey: sourceKey)
                Console.say(json ? report.json : report.text)
            }
        }
    }

    struct Convert: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write the rows of files as one file of another format.",
            discussion: """
                The last name is the result: .parquet, .jsonl, .json, .csv or .tsv. It must not exist, unless --force is given.

                EXAMPLES
                  fledge data convert train.parquet train.jsonl
                  fledge data convert 'parts/*.jsonl' all.parquet
                """)

        @Argument(help: "Files or patterns, and the result.", completion: .file())
        var files: [String]

        @Option(help: "Only these columns, with commas between them.")
        var columns: String?

        @Option(name: [.customShort("n"), .customLong("rows")], help: "The most rows.")
        var count: Int?

        @Flag(help: "Replace a result that exists.")
        var force = false

        @Flag(help: "Print JSON.")
        var json = false

        func validate() throws {
            if files.count < 2 { throw ValidationError("give the files to read and the file to write") }
            if let count, count < 1 { throw ValidationError("-n must be at least 1") }
        }

        func run() async throws {
            try Failures.reported {
                let output = files[files.count - 1]
                let input = try files.dropLast().flatMap { try FilePattern.files($0) }
                if !force, FileManager.default.fileExists(atPath: output) {
                    throw DatasetError(.badSetting, "'\(output)' exists already; give another name, or --force")
                }
                let rows = try RecordConverter.convert(
                    input, to: output, columns: DataCommand.columns(columns), limit: count ?? .max)
                Console.say(
                    json
                        ? JSONValue.object(
                            JSONObject([
                                .init(name: "rows", value: .number("\(rows)")),
                                .init(name: "file", value: .string(output)),
                            ])
                        ).text : "wrote \(rows) rows to \(output)")
            }
        }
    }
}
