import Logging
import OrderedCollections
import Synchronization
import Testing

@testable import Telemetry

@Suite struct LiveViewTests {
    private let output = KeptOutput()
    private let clock = ManualClock()

    private func view(
        interactive: Bool, width: @escaping @Sendable () -> Int = { 61 }, color: Bool = false
    ) -> LiveView {
        LiveView(
            title: "quickstart", totalSteps: 40, output: output,
            traits: TerminalTraits(isInteractive: interactive, usesColor: color, usesUnicode: true, width: width),
            clock: clock)
    }

    private func step(_ step: Int, reward: Double = 0.5) -> StepView {
        StepView(
            step: step, totalSteps: 40, reward: reward, kl: 0.0012, entropy: 1.5, responseLength: 12.25,
            tokensPerSecond: 812, stepSeconds: 10,
            phaseShares: [.generate: 0.6, .score: 0.001, .update: 0.3, .other: 0.099])
    }

    @Test func writesOneLineAStepWhereNothingCanBeRedrawn() throws {
        let view = view(interactive: false)
        try view.show(.generate, done: (1, of: 4))
        try view.show(step(1))
        try view.show(step(40))
        try view.finish()
        #expect(
            output.writes == [
                "step 1/40 reward=0.5 kl=0.0012 entropy=1.5 length=12.3 tok/s=812 time=10s generate=60% update=30% "
                    + "other=10% left=6m30s\n",
                "step 40/40 reward=0.5 kl=0.0012 entropy=1.5 length=12.3 tok/s=812 time=10s generate=60% update=30% "
                    + "other=10% left=0.0s\n",
            ])
    }

    @Test func redrawsInPlaceInOneWrite() throws {
        let view = view(interactive: true)
        for number in 1...3 {
            clock.advance(.seconds(10))
            try view.show(step(number, reward: Double(number) / 4))
        }
        #expect(output.writes.count == 3)
        #expect(
            Screen(output.text).rows == [
                "fledge · quickstart                                step 3/40",
                "━━━───────────────────────────────────────  30s · 6m10s left",
                "reward 0.75  kl 0.0012  entropy 1.5  length 12.3  tok/s 812…",
                "0.25 ▁▅█ 0.75",
                "generate 60%  update 30%  other 10%",
            ])
        // Lines are overwritten; the screen is never wiped before it is drawn.
        #expect(!output.text.contains("\u{1B}[2J"))
        #expect(output.writes.allSatisfy { $0.hasSuffix("\u{1B}[J") })
    }

    @Test(arguments: [1, 2, 10, 20, 33, 61, 200])
    func everyLineFitsTheWidth(_ width: Int) throws {
        let view = view(interactive: true, width: { width })
        try view.show(step(1, reward: -1.0 / 3))
        try view.show(.oldLogProb, done: (3, of: 12))
        try view.show(step(2, reward: .nan))
        for row in Screen(output.text).rows { #expect(TerminalText.width(row) <= max(1, width - 1), "\(row)") }
    }

    @Test func countsTheRowsThatANarrowerWindowWrapped() throws {
        let width = Mutex(61)
        let view = view(interactive: true, width: { width.withLock { $0 } })
        try view.show(.generate)
        let rows = Screen(output.text).rows.map { TerminalText.width($0) }
        width.withLock { $0 = 31 }
        try view.show(step(1))
        let wrapped = rows.reduce(0) { $0 + max(1, ($1 + 30) / 31) }
        #expect(wrapped > rows.count)
        #expect(output.writes[1].hasPrefix("\r\u{1B}[\(wrapped)A"))
    }

    @Test func showsActivityAtMostTenTimesASecond() throws {
        let view = view(interactive: true)
        try view.show(.generate, done: (0, of: 48))
        for done in 1...48 {
            clock.advance(.milliseconds(10))
            try view.show(.generate, done: (done, of: 48))
        }
        #expect(output.writes.count == 5)
        try view.show(.score)
        #expect(output.writes.count == 6)
        #expect(Screen(output.text).rows.last?.hasPrefix("▸ score") == true)
    }

    @Test func printsAndLogsAboveThePanel() throws {
        let view = view(interactive: true)
        try view.show(step(1))
        let panel = Screen(output.text).rows
        try view.printLine("an answer with \u{1B}[31mcolours\nand lines")
        var logger = Logger(label: "rewards") { _ in LiveViewLogHandler(label: "rewards", view: view) }
        logger[metadataKey: "row"] = "7"
        logger.warning("timed out")
        logger.debug("not shown")
        #expect(
            Screen(output.text).rows
                == ["an answer with ␛[31mcolours⏎and lines", "warning rewards: timed out row=7"] + panel)
    }

    @Test func leavesThePanelAndTheCursorBelowIt() throws {
        let view = view(interactive: true)
        try view.show(step(40))
        try view.finish()
        let panel = Screen(output.text).rows
        try view.printLine("done")
        #expect(Screen(output.text).rows == panel + ["done"])
    }

    @Test func coloursOnlyWhenWanted() throws {
        try view(interactive: true, color: false).show(step(1))
        #expect(!output.text.contains("\u{1B}[1m"))
        try view(interactive: true, color: true).show(step(1))
        #expect(output.text.contains("\u{1B}[1m"))
    }

    @Test func resumedRunsKeepTheirCurveAndPace() throws {
        let view = view(interactive: true)
        view.replay((1...9).map { step($0, reward: Double($0) / 10) })
        try view.show(step(10, reward: 1))
        #expect(Screen(output.text).rows.contains { $0.hasPrefix("0.1 ▁") && $0.hasSuffix("█ 1") })
        #expect(output.writes.count == 1)
    }

    @Test func aClosedStreamIsReported() throws {
        struct Full: TerminalOutput {
            let file: MetricsFile
            func write(_ bytes: [UInt8]) throws(TelemetryError) { try file.write(StepMetrics(step: 1)) }
        }
        let view = LiveView(
            title: "t", totalSteps: 1, output: Full(file: try MetricsFile("/dev/full")), traits: .plain(), clock: clock)
        #expect { try view.show(step(1)) } throws: { ($0 as? TelemetryError)?.code == .io }
    }

    @Test func readsAStepFromItsMetrics() throws {
        var metrics = StepMetrics(step: 7, values: [.reward: 0.25, .kl: 0.1])
        try metrics.record(PhaseTimes(step: .seconds(8), phases: [.generate: .seconds(6)]).metrics)
        let view = StepView(metrics, totalSteps: 9)
        #expect(view.reward == 0.25 && view.kl == 0.1 && view.stepSeconds == 8 && view.entropy == nil)
        #expect(view.phaseShares == [.generate: 0.75, .other: 0.25])
        metrics[.score] = 0.5
        #expect(StepView(metrics, totalSteps: 9).reward == 0.5)
    }
}
