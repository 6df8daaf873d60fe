import Foundation
import Testing

@testable import Telemetry

@Suite struct SampleTests {
    private let hostile = "</td><script>alert(1)</script>\u{1B}[2J\u{1B}]0;x\u{7}\n\u{202E}\"'\0漢字😀"

    private func rows(_ step: Int, _ rewards: [Double] = [0, 1]) -> StepSamples {
        StepSamples(
            step: step,
            samples: rewards.map { Sample(prompt: "1 + \(step)?", answer: hostile, groundTruth: "\(step)", reward: $0) }
        )
    }

    @Test func comesBackAsWritten() throws {
        let folder = try TemporaryFolder()
        let file = try SampleFile(folder("s"))
        try file.write(rows(1))
        try file.write(StepSamples(step: 2, samples: []))
        try file.write(rows(3, [.infinity, -0.5, 2]))
        #expect(try SampleFile.read(folder("s")) == [rows(1), rows(3, [.infinity, -0.5, 2])])
    }

    @Test func truncatesWholeStepsAndATornLine() throws {
        let folder = try TemporaryFolder()
        let file = try SampleFile(folder("s"))
        for step in 1...3 { try file.write(rows(step)) }
        let text = try contents(folder("s"))
        try String(text.dropLast(10)).write(toFile: folder("s"), atomically: false, encoding: .utf8)
        let resumed = try SampleFile(folder("s"))
        #expect { try resumed.write(rows(4)) } throws: { ($0 as? TelemetryError)?.code == .malformed }
        try resumed.truncate(afterStep: 2)
        try resumed.write(rows(3))
        #expect(try contents(folder("s")) == text)
    }

    @Test func refusesAnEarlierStepAndReportsAFullDisk() throws {
        let folder = try TemporaryFolder()
        let file = try SampleFile(folder("s"))
        try file.write(rows(2))
        #expect { try file.write(rows(1)) } throws: { ($0 as? TelemetryError)?.code == .outOfOrder }
        let full = try SampleFile("/dev/full")
        #expect { try full.write(rows(1)) } throws: { ($0 as? TelemetryError)?.code == .io }
    }

    @Test func namesARowThatIsNoSample() throws {
        let folder = try TemporaryFolder()
        try "{\"step\":7,\"prompt\":1}\n".write(toFile: folder("s"), atomically: false, encoding: .utf8)
        #expect { try SampleFile.read(folder("s")) } throws: {
            ($0 as? TelemetryError)?.message.contains("step 7") == true
        }
    }

    @Test(arguments: [20, 40, 80, 200])
    func rowsFitTheWidthAndDoNotSteerTheTerminal(_ width: Int) {
        let lines = rows(1, [0, 1, -3.25]).rows(.plain(width: width))
        #expect(lines.count == 5)
        for line in lines {
            #expect(TerminalText.width(line) <= max(width, 28))
            #expect(!line.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7F || $0 == "\u{202E}" })
        }
        let ascii = rows(1).rows(.plain(width: width, usesUnicode: false))
        #expect(ascii.allSatisfy { $0.utf8.allSatisfy { $0 < 0x80 } })
    }
}
