import Logging
import OrderedCollections
import Testing

@testable import Telemetry

@Suite struct TerminalTests {
    @Test(
        arguments: [
            (0, "0"), (1, "1"), (0.51234, "0.512"), (-0.51234, "-0.512"), (1234, "1234"), (12345, "12.3k"),
            (2.5e6, "2.5M"), (0.000012345, "1.23e-05"), (9.999e-6, "1e-05"), (1e300, "1e+300"),
            (.leastNonzeroMagnitude, "4.94e-324"),
            (.nan, "nan"), (-.infinity, "-inf"), (100, "100"), (0.001, "0.001"), (-7e8, "-700M"),
        ] as [(Double, String)])
    func writesNumbersShort(_ value: Double, _ expected: String) {
        #expect(NumberText.short(value) == expected)
    }

    @Test(
        arguments: [
            (0, "0.0s"), (8.24, "8.2s"), (9.97, "10s"), (59.4, "59s"), (59.7, "1m00s"), (125, "2m05s"), (3720, "1h02m"),
            (90000, "1d01h"), (.nan, "?"), (-1, "?"),
        ] as [(Double, String)])
    func writesDurations(_ seconds: Double, _ expected: String) {
        #expect(NumberText.duration(seconds) == expected)
    }

    @Test(arguments: [("abc", 3), ("漢字", 4), ("e\u{301}", 1), ("😀", 2), ("👨‍👩‍👧", 2), ("", 0)])
    func measuresCells(_ text: String, _ cells: Int) {
        #expect(TerminalText.width(text) == cells)
    }

    @Test func clipsToCells() {
        #expect(TerminalText.clipped("abcdef", to: 6) == "abcdef")
        #expect(TerminalText.clipped("abcdef", to: 4) == "abc…")
        #expect(TerminalText.clipped("漢字漢字", to: 4) == "漢…")
        #expect(TerminalText.clipped("abc", to: 0) == "")
    }

    @Test func drawsSparklines() {
        #expect(Sparkline.text([0, 1, 2, 3, 4, 5, 6, 7], width: 8) == "▁▂▃▄▅▆▇█")
        #expect(Sparkline.text([1, 1], width: 8) == "▅▅")
        #expect(Sparkline.text([0, .nan, 1], width: 8) == "▁!█")
        #expect(Sparkline.text([0, 0, 4, 4], width: 2) == "▁█")
        #expect(Sparkline.text([-Double.greatestFiniteMagnitude, .greatestFiniteMagnitude], width: 2) == "▁█")
        #expect(Sparkline.text([0, 1], width: 2, usesUnicode: false) == "_@")
        #expect(Sparkline.text([], width: 5) == "" && Sparkline.text([1], width: 0) == "")
    }

    @Test func plotsALine() {
        let series = MetricSeries(steps: [1, 2, 3], values: [0, 1, 2])
        let plot = LinePlot(title: "reward", series: series, width: 20, height: 8, usesUnicode: false)
        #expect(
            plot.lines() == [
                "reward",
                "2 +              ***",
                "  |          ****   ",
                "1 +      ****       ",
                "  |  ****           ",
                "0 +**               ",
                "  +-----------------",
                "   1     step      3",
            ])
        let dots = LinePlot(title: "t", series: series, width: 8, height: 6).lines()
        #expect(dots.joined(separator: "\n").unicodeScalars.contains { (0x2801...0x28FF).contains($0.value) })
    }

    @Test(
        arguments: [
            [], [3], [5, 5, 5], [.nan, .infinity], [1, .nan, 2], [1e300, -1e300], [.leastNonzeroMagnitude, 0],
            [1e15, 1e15 + 0.125],
            [-.greatestFiniteMagnitude, .greatestFiniteMagnitude],
        ] as [[Double]])
    func plotsAnyValuesWithinItsWidth(_ values: [Double]) {
        for (width, height) in [(1, 1), (12, 4), (40, 10), (100, 20)] {
            for usesUnicode in [true, false] {
                let series = MetricSeries(steps: Array(values.indices), values: values)
                let plot = LinePlot(title: "t", series: series, width: width, height: height, usesUnicode: usesUnicode)
                let lines = plot.lines()
                #expect(!lines.isEmpty)
                #expect(lines.allSatisfy { TerminalText.width($0) <= width }, "\(width)x\(height) \(values)")
            }
        }
    }

    @Test func ticksAreRoundAndInside() {
        #expect(AxisTicks.values(0...1, count: 4) == [0, 0.25, 0.5, 0.75, 1])
        #expect(AxisTicks.values(-3...7, count: 4) == [-2.5, 0, 2.5, 5])
        #expect(AxisTicks.widened(0.1...0.93, count: 4) == 0...1)
        #expect(AxisTicks.values(1e15...1e15, count: 4).count <= 2)
    }

    @Test(
        arguments: [
            (true, [:], true, true), (true, ["NO_COLOR": "1"], true, false), (true, ["NO_COLOR": ""], true, true),
            (true, ["TERM": "dumb"], false, false), (true, ["CI": "true"], false, false), (false, [:], false, false),
        ] as [(Bool, [String: String], Bool, Bool)])
    func detectsTraits(_ isTerminal: Bool, _ environment: [String: String], _ redraws: Bool, _ colors: Bool) {
        let traits = TerminalTraits.detect(
            isTerminal: isTerminal, environment: { environment[$0] }, measuredWidth: { 72 })
        #expect(traits.isInteractive == redraws && traits.usesColor == colors)
        #expect(traits.width() == (isTerminal ? 72 : 100))
    }

    @Test func localeDecidesTheCharacters() {
        func unicode(_ environment: [String: String]) -> Bool {
            TerminalTraits.detect(isTerminal: true, environment: { environment[$0] }, measuredWidth: { nil })
                .usesUnicode
        }
        #expect(unicode([:]) && unicode(["LANG": "en_US.UTF-8"]) && unicode(["LC_ALL": "C.UTF-8", "LANG": "C"]))
        #expect(!unicode(["LC_ALL": "C", "LANG": "en_US.UTF-8"]) && !unicode(["LANG": "POSIX"]))
    }
}
