import ArgumentParser
import Foundation
import Telemetry

struct Runs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List runs, or show one.",
        discussion: """
            EXAMPLES
              fledge runs                                  the runs in runs/
              fledge runs show runs/quickstart             plots in the terminal, and writes report.html
              fledge runs show runs/quickstart --json      the summary, for programs
            """,
        subcommands: [List.self, Show.self], defaultSubcommand: List.self)

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the runs in a folder.")

        @Argument(help: "The folder.", completion: .directory)
        var folder = "runs"

        func run() async throws {
            try Failures.reported {
                let rows = RunListing.rows(try RunListing.list(in: folder), traits: StandardStream.output.traits)
                for row in rows { Console.say(row) }
            }
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Plot a run to the terminal and write its report.html.")

        @Argument(help: "The run's folder.", completion: .directory)
        var folder: String

        @Flag(help: "Print the summary as JSON instead.")
        var json = false

        func run() async throws {
            try Failures.reported {
                let run = RunFolder(folder)
                guard run.holdsRun else {
                    Console.note("error: \(folder) holds no run")
                    throw ExitCode(2)
                }
                if json {
                    guard let summary = try run.readSummary() else {
                        Console.note("error: \(run.summary) is not there: the run was stopped before it began")
                        throw ExitCode(2)
                    }
                    return Console.stream(summary.json)
                }
                for line in try RunRecord(reading: run).lines(StandardStream.output.traits) { Console.say(line) }
                try run.writeReport()
                Console.say("report: \(run.report)")
            }
        }
    }
}
