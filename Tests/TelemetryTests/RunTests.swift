import Foundation
import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct RunTests {
    private let summary = RunSummary(
        status: .finished, steps: 12, totalSteps: 40, model: "SmolLM2 \"135M\"", device: "cpu",
        versions: ["fledge": "0.1", "torch": "2.11.0"], heldOutExactMatch: .init(before: 0.125, after: nil),
        times: ["time/wall_s": 61.5], failure: "disk\nfull")

    private func makeRun(in folder: TemporaryFolder, _ name: String, steps: Int = 3) throws -> RunFolder {
        let run = RunFolder(folder(name))
        try run.create()
        try run.write(config: "rollout:\n  n: 8 # <i>\n")
        let metrics = try MetricsFile(run.metrics)
        let samples = try SampleFile(run.samples)
        for step in 1...steps {
            try metrics.write(
                StepMetrics(
                    step: step,
                    values: [
                        .score: Double(step) / 4, "actor/loss": step == 2 ? .nan : 1, "perf/share/generate": 0.5,
                        "perf/share/update": 0.25, "time/step_s": 2,
                    ]))
            try samples.write(
                StepSamples(
                    step: step,
                    samples: [
                        Sample(
                            prompt: "p", answer: "</script><img src=x onerror='a()'>\u{1B}[2J", groundTruth: "&",
                            reward: 1)
                    ]))
        }
        return run
    }

    @Test func pathsLieInTheFolder() {
        let run = RunFolder("runs/quickstart/")
        #expect(run.name == "quickstart" && run.path == "runs/quickstart")
        #expect(run.summary == "runs/quickstart/summary.json" && run.tensorBoard == "runs/quickstart/tb")
    }

    @Test func summaryComesBack() throws {
        let folder = try TemporaryFolder()
        let run = RunFolder(folder("a/b/c"))
        try run.create()
        try run.create()
        #expect(try run.readSummary() == nil && run.readConfig() == nil)
        try run.write(summary)
        #expect(try run.readSummary() == summary)
        #expect(try FileManager.default.contentsOfDirectory(atPath: run.path) == ["summary.json"])
        let object = try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: run.summary)))
        let match = (object as? [String: Any])?["heldout_exact_match"] as? [String: Any]
        #expect(match?["before"] as? Double == 0.125 && match?["after"] is NSNull)
    }

    @Test(arguments: [
        ("status", "{}"), ("steps", #"{"status":"finished","steps":"x"}"#),
        (
            "time/wall_s",
            #"{"status":"a","steps":1,"total_steps":2,"model":"m","device":"d","versions":{},"time/wall_s":[]}"#
        ),
    ])
    func damagedSummaryNamesTheKey(_ key: String, _ text: String) {
        #expect { try RunSummary(parsing: Array(text.utf8), path: "s.json") } throws: {
            let error = $0 as? TelemetryError
            return error?.code == .malformed && error?.message.contains("'\(key)'") == true && error?.path == "s.json"
        }
    }

    @Test func aFailedReplacementLeavesTheOldFile() throws {
        let folder = try TemporaryFolder()
        let run = RunFolder(folder("run"))
        try run.create()
        try run.write(summary)
        // Something else has the temporary name: the new text cannot be written.
        let blocker = run.summary + ".tmp-\(SystemFacts.processIdentifier)"
        try FileManager.default.createDirectory(atPath: blocker + "/x", withIntermediateDirectories: true)
        var changed = summary
        changed.steps = 13
        #expect { try run.write(changed) } throws: { ($0 as? TelemetryError)?.code == .io }
        #expect(try run.readSummary() == summary)
    }

    /// A run killed after step 3 and resumed from its checkpoint of step 2 ends with the bytes of one never killed.
    @Test func aResumedRunRecordsTheSameBytes() throws {
        let folder = try TemporaryFolder()
        func record(_ steps: ClosedRange<Int>, in name: String, resumingAfter step: Int?) throws {
            let recorder = try RunRecorder(RunFolder(folder(name)), resumingAfter: step, now: { 7 })
            for step in steps {
                try recorder.write(
                    StepMetrics(step: step, values: ["a/b": 1 / Double(step)]),
                    samples: [Sample(prompt: "p", answer: "\(step)", groundTruth: "", reward: 0)])
            }
            try recorder.flush()
        }
        try record(1...5, in: "whole", resumingAfter: nil)
        try record(1...3, in: "killed", resumingAfter: nil)
        try record(3...5, in: "killed", resumingAfter: 2)
        for file in ["metrics.jsonl", "samples.jsonl"] {
            #expect(try contents(folder("whole/" + file)) == contents(folder("killed/" + file)))
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder("killed/tb")).count == 2)
        #expect { try record(1...1, in: "whole", resumingAfter: nil) } throws: {
            let error = $0 as? TelemetryError
            return error?.code == .outOfOrder && error?.message.contains("step 5") == true
        }
        try record(0...0, in: "whole", resumingAfter: -1)
        #expect(try MetricsHistory(reading: folder("whole/metrics.jsonl")).steps.map(\.step) == [0])
    }

    @Test func aFileInTheWayOfTheFolderIsNamed() throws {
        let folder = try TemporaryFolder()
        try "x".write(toFile: folder("f"), atomically: false, encoding: .utf8)
        #expect { try RunFolder(folder("f")).create() } throws: { ($0 as? TelemetryError)?.path == folder("f") }
        #expect { try RunFolder(folder("f/g")).create() } throws: { ($0 as? TelemetryError)?.code == .io }
    }

    @Test func listsRunsAndShowsTheDamagedOnes() throws {
        let folder = try TemporaryFolder()
        try makeRun(in: folder, "good").write(summary)
        let bad = try makeRun(in: folder, "bad")
        try "{".write(toFile: bad.summary, atomically: false, encoding: .utf8)
        try RunFolder(folder("empty")).create()
        try "x".write(toFile: folder("file"), atomically: false, encoding: .utf8)

        let listings = try RunListing.list(in: folder.path)
        #expect(Set(listings.map(\.name)) == ["good", "bad"])
        let good = try #require(listings.first { $0.name == "good" })
        #expect(good.status == .finished && good.steps == 12 && good.totalSteps == 40 && good.lastReward == 0.75)
        #expect(try #require(listings.first { $0.name == "bad" }).problem?.contains("summary.json") == true)

        let rows = RunListing.rows(listings.sorted { $0.name < $1.name }, traits: .plain(width: 200))
        #expect(rows.count == 3 && rows[0].hasPrefix("name"))
        #expect(rows[1].contains("damaged") && rows[2].contains("12/40") && rows[2].contains("0.75"))
    }

    @Test func aFolderWithoutARunIsNamed() throws {
        let folder = try TemporaryFolder()
        #expect { try RunRecord(reading: RunFolder(folder.path)) } throws: {
            ($0 as? TelemetryError)?.description.contains("holds no run") == true
        }
        #expect(throws: TelemetryError.self) { try RunListing.list(in: "/nonexistent") }
    }

    @Test func showsARunAsText() throws {
        let folder = try TemporaryFolder()
        let run = try makeRun(in: folder, "run")
        try run.write(summary)
        let lines = try RunRecord(reading: run).lines(.plain(width: 80))
        #expect(lines.contains { $0.contains("exact match 12.5 % → -") })
        #expect(lines.contains { $0.hasPrefix("critic/score/mean") && $0.hasSuffix("▁▅█") })
        #expect(lines.contains { $0.contains("samples of step 3") })
        #expect(lines.allSatisfy { TerminalText.width($0) <= 80 && !$0.contains("\u{1B}") })
    }

    @Test func theReportStandsAloneAndEscapesAnswers() throws {
        let folder = try TemporaryFolder()
        let run = try makeRun(in: folder, "run")
        try run.write(summary)
        try run.writeReport()
        let page = try contents(run.report)
        #expect(
            page.hasPrefix("<!doctype html>") && page.contains("&lt;/script&gt;&lt;img src=x onerror=&#39;a()&#39;&gt;")
        )
        #expect(!page.contains("<img") && !page.contains("\u{1B}"))
        // One script of its own and one block of data: no answer has opened another.
        #expect(page.components(separatedBy: "<script").count == 3)
        #expect(page.components(separatedBy: "</script").count == 3)
        for reference in ["src=\"", "url(", "@import", "<link", "href=\"http"] { #expect(!page.contains(reference)) }
        #expect(page.contains("n: 8 # &lt;i&gt;") && page.contains("12.5 %") && page.contains("id=\"phases\""))
        for name in ["critic/score/mean", "actor/loss", "time/step_s"] {
            #expect(page.contains("aria-label=\"\(name)\""))
        }
        #expect(page.contains("class=\"broken\""))
        let start = try #require(page.range(of: "id=\"data\">"))
        let end = try #require(page.range(of: "</script>", range: start.upperBound..<page.endIndex))
        let data = try JSONValue(parsing: Array(page[start.upperBound..<end.lowerBound].utf8))
        #expect(data["charts"] != nil && data["phases"]?["names"] == .array([.string("generate"), .string("update")]))
    }

    @Test func anEmptyRunHasAReport() throws {
        let folder = try TemporaryFolder()
        let run = RunFolder(folder("run"))
        try run.create()
        try run.write(config: "")
        try run.writeReport()
        #expect(try contents(run.report).contains("No metrics were recorded yet."))
    }

    @Test func longSeriesAreThinnedKeepingTheirExtremes() {
        var values = (0..<10_000).map { Double($0 % 7) }
        values[5001] = 100
        values[7002] = -100
        values[9003] = .nan
        let thin = MetricChart.thinned(MetricSeries(steps: Array(0..<10_000), values: values))
        #expect(thin.steps.count <= MetricChart.mostPoints * 3 / 2)
        #expect(thin.values.contains(100) && thin.values.contains(-100) && thin.values.contains { $0.isNaN })
        #expect(thin.steps == thin.steps.sorted() && Set(thin.steps).count == thin.steps.count)
    }
}
