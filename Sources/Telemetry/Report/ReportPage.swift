import OrderedCollections

extension RunRecord {
    /// The run as one HTML page with everything inside it: no other file, no network.
    public func htmlReport() -> String { ReportPage(record: self).html().text }
}

extension RunFolder {
    /// Writes `report.html` from what the folder holds, atomically.
    /// - Throws: `TelemetryError` when the folder holds no run, a file of it is damaged, or the report cannot be written.
    public func writeReport() throws(TelemetryError) {
        try PosixFile.replaceAtomically(report, with: Array(RunRecord(reading: self).htmlReport().utf8))
    }
}

/// Puts the sections of the report together.
struct ReportPage {
    /// Groups in this order come first, others by their first appearance, those of the clock last.
    private static let firstGroups = [
        "critic", "train", "rewards", "heldout", "val", "reward", "actor", "response_length", "rollout",
    ]
    private static let lastGroups = ["perf", "time"]

    let record: RunRecord

    func html() -> HTML {
        let groups = groups
        let phases = PhaseChart(record.history)
        return """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta http-equiv="Content-Security-Policy" \
            content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
            <title>\(record.name) · Fledge</title>
            <style>\(ReportStyle.sheet)</style></head><body>
            \(header(groups, hasPhases: phases != nil))<main>
            \(facts())\(charts(groups, phases))\(SampleSection(samples: record.samples).html())\(config())
            </main>
            <div id="tip" hidden></div>
            <script type="application/json" id="data">\(data(groups, phases))</script>
            <script>\(ReportScript.text)</script>
            </body></html>

            """
    }

    private typealias Group = (name: String, charts: [MetricChart])

    private var groups: [Group] {
        var groups: [Group] = []
        // The shares have a chart of their own.
        for (name, series) in record.history.series where name.phaseOfShare == nil {
            let chart = MetricChart(name: name, series: series)
            if let index = groups.firstIndex(where: { $0.name == name.group }) {
                groups[index].charts.append(chart)
            } else {
                groups.append((name.group, [chart]))
            }
        }
        func rank(_ name: String) -> Int {
            if let first = Self.firstGroups.firstIndex(of: name) { return first }
            let rest = Self.firstGroups.count
            return Self.lastGroups.firstIndex(of: name).map { rest + 1 + $0 } ?? rest
        }
        return groups.enumerated()
            .sorted { (rank($0.element.name), $0.offset) < (rank($1.element.name), $1.offset) }
            .map(\.element)
    }

    private func header(_ groups: [Group], hasPhases: Bool) -> HTML {
        let links = groups.map { "<a href=\"#group-\($0.name)\">\($0.name)</a>" as HTML }
        let samples: HTML = record.samples.isEmpty ? "" : "<a href=\"#samples\">samples</a>"
        let config: HTML = record.config == nil ? "" : "<a href=\"#config\">config</a>"
        let status = record.summary?.status.name ?? "no summary"
        let phases: HTML = hasPhases ? "<a href=\"#phases\">phases</a>" : ""
        return """
            <header><div class="bar"><span class="brand">fledge</span><h1>\(record.name)</h1>\
            <span class="status \(status)">\(status)</span><nav>\(links)\(phases)\(samples)\(config)</nav>
            <label class="control scripted">smoothing <input type="range" id="smoothing" min="0" max="0.98" step="0.02" \
            value="\(NumberText.fixed(MetricChart.smoothing, 2))"></label>
            <button id="theme" class="scripted" type="button" aria-label="light or dark">◐</button></div></header>

            """
    }

    private func facts() -> HTML {
        let cells = record.facts.map { "<div><dt>\($0.name)</dt><dd>\($0.text)</dd></div>" as HTML }
        return "<section class=\"overview\">\(heldOut())<dl class=\"facts\">\(cells)</dl></section>\n"
    }

    private func heldOut() -> HTML {
        guard let match = record.summary?.heldOutExactMatch else { return "" }
        func percent(_ share: Double?) -> String { share.map { NumberText.fixed($0 * 100, 1) + " %" } ?? "–" }
        var gain: HTML = ""
        if let before = match.before, let after = match.after {
            let points = (after - before) * 100
            let sign = points >= 0 ? "+" : ""
            gain = "<p class=\"gain\">\(sign + NumberText.fixed(points, 1)) points</p>"
        }
        return """
            <div class="heldout"><p class="label">held-out exact match</p>
            <p class="figures"><span>\(percent(match.before))</span><span class="arrow">→</span>\
            <strong>\(percent(match.after))</strong></p>\(gain)</div>
            """
    }

    /// The groups' sections, the phases' between what the clock has no part in and what it has.
    private func charts(_ groups: [Group], _ phases: PhaseChart?) -> HTML {
        if groups.isEmpty { return "<p class=\"note\">No metrics were recorded yet.</p>\n" }
        var index = 0
        var sections = groups.map { group -> HTML in
            let charts = group.charts.map { chart -> HTML in
                defer { index += 1 }
                return chart.html(index: index)
            }
            return """
                <section id="group-\(group.name)"><h2>\(group.name)</h2><div class="grid-of-charts">
                \(charts)</div></section>

                """
        }
        if let phases {
            let place = groups.firstIndex { Self.lastGroups.contains($0.name) } ?? sections.endIndex
            sections.insert(phases.html(), at: place)
        }
        return HTML(joining: sections)
    }

    private func config() -> HTML {
        guard let config = record.config else { return "" }
        return "<section id=\"config\"><h2>Configuration</h2><pre>\(config)</pre></section>"
    }

    private func data(_ groups: [Group], _ phases: PhaseChart?) -> HTML {
        var writer = JSONWriter(style: .embeddable)
        writer.object {
            $0.key("frame")
            $0.array {
                for edge in [ChartFrame.left, ChartFrame.rightMargin, ChartFrame.top, ChartFrame.bottom] {
                    $0.value(edge)
                }
            }
            $0.key("charts")
            $0.array { for group in groups { for chart in group.charts { chart.writeData(to: &$0) } } }
            if let phases {
                $0.key("phases")
                phases.writeData(to: &$0)
            }
        }
        return HTML(trusted: writer.text)
    }
}
