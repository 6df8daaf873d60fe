import Synchronization

/// The view of a run while it trains: a panel that is redrawn in place on a terminal, one line a step elsewhere.
///
/// A redraw is one write that overwrites the lines and clears only what is left over, so nothing flickers. The cursor
/// stays visible and below the panel, so a killed run leaves the terminal sound.
public final class LiveView: Sendable {
    private struct State {
        var progress: RunProgress
        /// The widths of the lines on the screen, in cells.
        var drawn: [Int] = []
        var lastDrawing: Duration?
    }

    /// Between two drawings of the activity inside a step.
    private static let shortestPause = Duration.milliseconds(100)

    private let output: any TerminalOutput
    private let traits: TerminalTraits
    private let now: @Sendable () -> Duration
    private let state: Mutex<State>

    /// - Parameters:
    ///   - title: what is running, for the panel's head.
    ///   - clock: gives the time that has passed; the steps' own times come with them.
    public init<C: Clock>(
        title: String, totalSteps: Int, output: any TerminalOutput = StandardStream.error,
        traits: TerminalTraits = StandardStream.error.traits, clock: C = ContinuousClock()
    ) where C.Duration == Duration {
        self.output = output
        self.traits = traits
        now = clock.elapsed
        state = Mutex(State(progress: RunProgress(title: title, totalSteps: totalSteps)))
    }

    /// Fills the reward's curve and the pace with the steps of a resumed run's history, showing nothing.
    public func replay(_ history: [StepView]) {
        state.withLock { state in for view in history { state.progress.add(view) } }
    }

    /// Shows a finished step.
    /// - Throws: `TelemetryError` with code `io`.
    public func show(_ view: StepView) throws(TelemetryError) {
        try state.withLock { state throws(TelemetryError) in
            state.progress.add(view)
            if traits.isInteractive {
                try redraw(&state)
            } else {
                try writeLine(PlainLine.text(view, secondsLeft: state.progress.secondsLeft))
            }
        }
    }

    /// Says which phase runs now and, when it counts them, how many of its parts are done. Shown on a terminal only,
    /// at most ten times a second.
    /// - Throws: `TelemetryError` with code `io`.
    public func show(_ phase: Phase, done: (Int, of: Int)? = nil) throws(TelemetryError) {
        guard traits.isInteractive else { return }
        try state.withLock { state throws(TelemetryError) in
            let isNew = state.progress.activity?.phase != phase
            state.progress.activity = RunProgress.Activity(phase: phase, done: done.map { ($0.0, $0.of) })
            if !isNew, let last = state.lastDrawing, now() - last < Self.shortestPause { return }
            try redraw(&state)
        }
    }

    /// Prints a line of text above the panel, or just prints it when there is none. What could steer the terminal in
    /// it is made visible.
    /// - Throws: `TelemetryError` with code `io`.
    public func printLine(_ text: String) throws(TelemetryError) {
        try printLines([StyledLine(TerminalText.harmless(text))])
    }

    /// Prints a few samples of a step as rows, above the panel.
    /// - Throws: `TelemetryError` with code `io`.
    public func show(_ samples: StepSamples) throws(TelemetryError) {
        try printLines(SampleRows(width: traits.width()).lines(samples))
    }

    /// Leaves the panel as it is; what is written next stands below it.
    /// - Throws: `TelemetryError` with code `io`.
    public func finish() throws(TelemetryError) {
        try state.withLock { state throws(TelemetryError) in
            guard traits.isInteractive, !state.drawn.isEmpty else { return }
            state.progress.activity = nil
            try redraw(&state)
            state.drawn = []
        }
    }

    private func printLines(_ lines: [StyledLine]) throws(TelemetryError) {
        try state.withLock { state throws(TelemetryError) in
            guard traits.isInteractive, !state.drawn.isEmpty else {
                let rendered = lines.map { $0.rendered(traits) }
                return try writeLine(rendered.joined(separator: "\n"))
            }
            try redraw(&state, above: lines)
        }
    }

    private func writeLine(_ text: String) throws(TelemetryError) {
        try output.write(Array((text + "\n").utf8))
    }

    private func redraw(_ state: inout State, above: [StyledLine] = []) throws(TelemetryError) {
        let time = now()
        state.progress.elapsed = time / .seconds(1)
        state.lastDrawing = time
        let window = traits.width()
        // A line that fills its row exactly leaves some terminals waiting to wrap: keep one cell free.
        let panel = ProgressPanel(width: window - 1, traits: traits)
        let lines = panel.lines(state.progress)

        var frame = ""
        // A window made narrower has wrapped the old lines: go up by the rows that they take now.
        let rows = state.drawn.reduce(0) { $0 + max(1, ($1 + window - 1) / max(1, window)) }
        if rows > 0 { frame += "\r\u{1B}[\(rows)A" }
        for line in above { frame += line.rendered(traits) + "\u{1B}[K\n" }
        for line in lines { frame += line.rendered(width: panel.width, traits) + "\u{1B}[K\n" }
        frame += "\u{1B}[J"
        try output.write(Array(frame.utf8))
        state.drawn = lines.map { min($0.width, panel.width) }
    }
}
