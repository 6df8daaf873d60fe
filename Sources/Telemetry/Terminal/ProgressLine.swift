import Synchronization

/// How far a job of many equal parts is.
public struct JobProgress: Sendable, Hashable {
    /// Parts done, those of an earlier process too.
    public var done: Int
    public var total: Int
    /// Parts done by this process, and what the rate counts, in `seconds`.
    public var doneNow: Int
    public var units: Int
    public var seconds: Double

    public init(done: Int, total: Int, doneNow: Int, units: Int, seconds: Double) {
        self.done = done
        self.total = total
        self.doneNow = doneNow
        self.units = units
        self.seconds = seconds
    }

    var rate: Double? { seconds > 0 ? Double(units) / seconds : nil }
    /// By the mean of the parts so far.
    var secondsLeft: Double? { doneNow > 0 ? seconds / Double(doneNow) * Double(total - done) : nil }
}

/// One line on a terminal that is redrawn in place; elsewhere nothing.
public final class ProgressLine: Sendable {
    private struct State {
        var isDrawn = false
        var lastDrawing: ContinuousClock.Instant?
    }

    private let part, unit: String
    private let output: any TerminalOutput
    private let traits: TerminalTraits
    private let state = Mutex(State())

    /// - Parameters:
    ///   - part: what is counted, as `lines`.
    ///   - unit: what the rate is of, as `tokens`.
    public init(
        part: String, unit: String, output: any TerminalOutput = StandardStream.error,
        traits: TerminalTraits = StandardStream.error.traits
    ) {
        self.part = part
        self.unit = unit
        self.output = output
        self.traits = traits
    }

    /// Draws anew, at most ten times a second.
    /// - Throws: `TelemetryError` with code `io`.
    public func show(_ progress: JobProgress) throws(TelemetryError) {
        guard traits.isInteractive else { return }
        try state.withLock { state throws(TelemetryError) in
            let now = ContinuousClock.now
            if let last = state.lastDrawing, now - last < .milliseconds(100) { return }
            state.lastDrawing = now
            state.isDrawn = true
            // A line that fills its row exactly leaves some terminals waiting to wrap.
            let text = line(progress).rendered(width: max(1, traits.width() - 1), traits)
            try output.write(Array("\r\(text)\u{1B}[K".utf8))
        }
    }

    /// Takes the line off the terminal.
    /// - Throws: `TelemetryError` with code `io`.
    public func clear() throws(TelemetryError) {
        try state.withLock { state throws(TelemetryError) in
            guard state.isDrawn else { return }
            state.isDrawn = false
            try output.write(Array("\r\u{1B}[K".utf8))
        }
    }

    func line(_ progress: JobProgress) -> StyledLine {
        let cells = 24
        let share = Double(progress.done) / Double(max(1, progress.total))
        let full = Int((min(1, max(0, share)) * Double(cells)).rounded())
        var line = StyledLine(String(repeating: "━", count: full), .green)
        line.append(String(repeating: "─", count: cells - full), .faint)
        line.append(" \(progress.done)/\(progress.total) \(part)", .bold)
        if let rate = progress.rate { line.append("  \(NumberText.short(rate)) \(unit)/s") }
        if let left = progress.secondsLeft { line.append("  \(NumberText.duration(left)) left", .faint) }
        return line
    }
}
