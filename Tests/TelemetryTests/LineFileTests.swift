import Foundation
import Testing

@testable import Telemetry

@Suite struct LineFileTests {
    private func content(_ path: String) -> String {
        String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    }

    @Test func growsByLinesAndGoesOn() throws {
        let folder = try TemporaryFolder()
        let path = folder("a.jsonl")
        do {
            var file = try LineFile(path)
            let isNew = file.isEmpty
            #expect(isNew)
            try file.append(Array("one\n".utf8))
            try file.sync()
        }
        var file = try LineFile(path)
        let isEmpty = file.isEmpty
        #expect(!isEmpty)
        let cut = try file.cutTornLine()
        #expect(cut == 0)
        try file.append(Array("two\nthree\n".utf8))
        #expect(content(path) == "one\ntwo\nthree\n")
        try file.removeAll()
        let isCleared = file.isEmpty
        #expect(isCleared && content(path).isEmpty)
    }

    /// Wherever the cut is, also where the rest is longer than one read.
    @Test(arguments: [0, 1, 3, 1 << 16, 200_000])
    func aTornLineIsCut(_ length: Int) throws {
        let folder = try TemporaryFolder()
        for head in ["", "one\n", "one\ntwo\n"] {
            let path = folder("\(head.count)")
            try Data((head + String(repeating: "x", count: length)).utf8).write(to: URL(fileURLWithPath: path))
            var file = try LineFile(path)
            let cut = try file.cutTornLine()
            #expect(cut == length)
            try file.append(Array("last\n".utf8))
            #expect(content(path) == head + "last\n")
        }
    }

    @Test func oneProcessAtATime() throws {
        let folder = try TemporaryFolder()
        let path = folder("a.jsonl")
        do {
            let file = try LineFile(path)
            let error = #expect(throws: TelemetryError.self) { _ = try LineFile(path) }
            #expect(error?.code == .busy)
            try file.sync()
        }
        try LineFile(path).sync()
    }

    @Test func aFolderIsRefused() throws {
        let folder = try TemporaryFolder()
        let error = #expect(throws: TelemetryError.self) { _ = try LineFile(folder.path) }
        #expect(error?.path == folder.path)
    }
}

@Suite struct ProgressLineTests {
    private let progress = JobProgress(done: 30, total: 120, doneNow: 20, units: 4000, seconds: 10)

    @Test func showsCountsRateAndTime() throws {
        let line = ProgressLine(part: "lines", unit: "tokens", output: KeptOutput(), traits: .plain())
        let text = line.line(progress).rendered(.plain())
        #expect(text == "━━━━━━──────────────────" + " 30/120 lines  400 tokens/s  45s left")
        let none = JobProgress(done: 0, total: 0, doneNow: 0, units: 0, seconds: 0)
        #expect(line.line(none).rendered(.plain()) == String(repeating: "─", count: 24) + " 0/0 lines")
    }

    @Test func redrawsOnATerminalOnly() throws {
        let kept = KeptOutput()
        let quiet = ProgressLine(part: "lines", unit: "tokens", output: kept, traits: .plain())
        try quiet.show(progress)
        try quiet.clear()
        #expect(kept.writes.isEmpty)
        var traits = TerminalTraits.plain(width: 40)
        traits.isInteractive = true
        let shown = ProgressLine(part: "lines", unit: "tokens", output: kept, traits: traits)
        try shown.show(progress)
        // Too soon to be seen.
        try shown.show(progress)
        try shown.clear()
        try shown.clear()
        try #require(kept.writes.count == 2)
        #expect(kept.writes[0].hasPrefix("\r━") && kept.writes[0].hasSuffix("\u{1B}[K"))
        #expect(kept.writes[0].count <= 1 + 39 + 3)
        #expect(kept.writes[1] == "\r\u{1B}[K")
    }
}
