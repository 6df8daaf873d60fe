import OrderedCollections

/// Everything that a run's folder tells, read at once for showing.
public struct RunRecord: Hashable, Sendable {
    public var name: String
    public var summary: RunSummary?
    public var config: String?
    public var history: MetricsHistory
    public var samples: [StepSamples]

    public init(
        name: String, summary: RunSummary?, config: String?, history: MetricsHistory, samples: [StepSamples]
    ) {
        self.name = name
        self.summary = summary
        self.config = config
        self.history = history
        self.samples = samples
    }

    /// Reads a run, also one under way.
    /// - Throws: `TelemetryError` when the folder holds no run, or a file of it is damaged.
    public init(reading folder: RunFolder) throws(TelemetryError) {
        guard folder.holdsRun else {
            throw TelemetryError(
                .malformed, "holds no run (no config.yaml, metrics.jsonl or summary.json); name the run's own folder",
                path: folder.path)
        }
        self.init(
            name: folder.name, summary: try folder.readSummary(), config: try folder.readConfig(),
            history: try MetricsHistory(reading: folder.metrics), samples: try SampleFile.read(folder.samples))
    }

    /// What is known of the run besides its metrics, as names and texts.
    var facts: [(name: String, text: String)] {
        var facts: [(String, String)] = []
        if let summary {
            facts.append(("status", summary.status.name))
            facts.append(("steps", "\(summary.steps) of \(summary.totalSteps)"))
            facts.append(("model", summary.model))
            facts.append(("device", summary.device))
            facts += summary.times.map { ($0.key.text, NumberText.duration($0.value)) }
            facts += summary.versions.map { ($0.key, $0.value) }
            if let failure = summary.failure { facts.append(("failure", failure)) }
        } else {
            facts.append(("steps", "\(history.steps.last?.step ?? 0)"))
        }
        return facts
    }
}

extension RunRecord {
    /// The run as text for a terminal: facts, held-out before and after, the reward's plot, every metric with its
    /// sparkline, the last samples.
    public func lines(_ traits: TerminalTraits) -> [String] {
        let width = max(40, min(traits.width(), ProgressPanel.widest))
        var lines: [StyledLine] = [StyledLine(TerminalText.harmless(name), .bold)]
        for (name, text) in facts {
            var line = StyledLine(TerminalText.padded(TerminalText.harmless(name), to: 16) + " ", .faint)
            line.append(TerminalText.harmless(text))
            lines.append(line)
        }
        if let match = summary?.heldOutExactMatch {
            func percent(_ share: Double?) -> String { share.map { NumberText.fixed($0 * 100, 1) + " %" } ?? "-" }
            var line = StyledLine(TerminalText.padded("held-out", to: 16) + " ", .faint)
            line.append(
                "exact match \(percent(match.before)) → \(percent(match.after))",
                .green)
            lines.append(line)
        }
        for (name, pair) in summary?.heldOut ?? [:] {
            func short(_ value: Double?) -> String { value.map { NumberText.short($0) } ?? "-" }
            var line = StyledLine(TerminalText.padded("held-out", to: 16) + " ", .faint)
            line.append("\(name.text) \(short(pair.before)) → \(short(pair.after))", .green)
            lines.append(line)
        }
        let headline = history.headline
        if !headline.series.values.isEmpty {
            lines.append(StyledLine())
            let plot = LinePlot(
                title: headline.name, series: headline.series, width: width, usesUnicode: traits.usesUnicode)
            lines += plot.lines().map { StyledLine($0) }
        }
        lines.append(StyledLine())
        lines += metricLines(width: width, usesUnicode: traits.usesUnicode)
        if let last = samples.last {
            lines.append(StyledLine())
            lines += SampleRows(width: width).lines(last)
        }
        return lines.map { $0.rendered(width: width, traits) }
    }

    private func metricLines(width: Int, usesUnicode: Bool) -> [StyledLine] {
        let series = history.series
        let nameCells = min(width / 2, series.keys.map(\.text.utf8.count).max() ?? 0)
        return series.map { name, series in
            var line = StyledLine(
                TerminalText.padded(TerminalText.clipped(name.text, to: nameCells), to: nameCells) + " ", .faint)
            let last = series.values.last.map { NumberText.short($0) } ?? "-"
            line.append(String(repeating: " ", count: max(0, 9 - last.utf8.count)) + last + " ")
            line.append(
                Sparkline.text(series.values, width: max(1, width - line.width), usesUnicode: usesUnicode), .cyan)
            return line
        }
    }
}
