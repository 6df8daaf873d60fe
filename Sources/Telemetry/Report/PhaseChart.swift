import OrderedCollections

/// The phases' shares of each step's time, stacked.
struct PhaseChart {
    static let colors = [
        "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d",
    ]

    private let phases: [Phase]
    /// For each step kept, its number and each phase's share.
    private let rows: [(step: Int, shares: [Double])]

    /// Nil when no step recorded shares.
    init?(_ history: MetricsHistory) {
        var phases: [Phase] = []
        for metrics in history.steps {
            for name in metrics.values.keys {
                if let phase = name.phaseOfShare, !phases.contains(phase) { phases.append(phase) }
            }
        }
        guard !phases.isEmpty else { return nil }
        self.phases = phases
        let recorded = history.steps.filter { $0.values.keys.contains { $0.phaseOfShare != nil } }
        let stride = max(1, (recorded.count + MetricChart.mostPoints - 1) / MetricChart.mostPoints)
        rows = Swift.stride(from: 0, to: recorded.count, by: stride).map { index in
            let step = recorded[index]
            return (step.step, phases.map { Self.sound(step[.share(of: $0)]) })
        }
    }

    private static func sound(_ share: Double?) -> Double {
        guard let share, share.isFinite else { return 0 }
        return max(0, share)
    }

    private func color(_ index: Int) -> String { Self.colors[index % Self.colors.count] }

    func html() -> HTML {
        // Phases that overlap sum to more than one.
        let tallest = max(1, rows.map { $0.shares.reduce(0, +) }.max() ?? 1)
        let frame = ChartFrame(width: 780, steps: range, values: 0...tallest)
        var base = [Double](repeating: 0, count: rows.count)
        let areas = phases.indices.map { index -> HTML in
            let top = zip(base, rows).map { $0 + $1.shares[index] }
            defer { base = top }
            // A lone step is drawn as a band, from one end to the other.
            let ends = rows.count == 1 ? [range.lowerBound, range.upperBound] : rows.map { Double($0.step) }
            let tops = rows.count == 1 ? [top[0], top[0]] : top
            let bases = rows.count == 1 ? [base[0], base[0]] : base
            let there = zip(ends, tops).map { point($0, $1, frame) }
            let back = zip(ends, bases).reversed().map { point($0, $1, frame) }
            let path = "M" + (there + back).joined(separator: "L") + "Z"
            return "<path d=\"\(path)\" fill=\"\(color(index))\"/>"
        }
        let means = phases.indices.map { index in
            rows.reduce(0) { $0 + $1.shares[index] } / Double(rows.count)
        }
        let legend = phases.indices.sorted { means[$0] > means[$1] }.map { index -> HTML in
            """
            <li><i style="background:\(color(index))"></i>\(phases[index].name)\
            <b>\(NumberText.fixed(means[index] * 100, 1)) %</b></li>
            """
        }
        return """
            <section id="phases"><h2>Where the time goes</h2><div class="phases"><figure class="chart wide">
            <figcaption><span class="name">share of each step's time</span></figcaption>
            <svg viewBox="0 0 \(frame.width) \(ChartFrame.height)" data-phases role="img" \
            aria-label="share of each step's time by phase">\(frame.grid(label: NumberText.percent))\(areas)\
            <g class="cursor"></g></svg></figure><ul class="legend">\(legend)</ul></div></section>

            """
    }

    private var range: ClosedRange<Double> {
        let first = Double(rows.first?.step ?? 0)
        return first...max(first + 1, Double(rows.last?.step ?? 0))
    }

    private func point(_ step: Double, _ value: Double, _ frame: ChartFrame) -> String {
        NumberText.fixed(frame.x(step), 1) + " " + NumberText.fixed(frame.y(value), 1)
    }

    func writeData(to writer: inout JSONWriter) {
        writer.object {
            $0.key("names")
            $0.array { for phase in phases { $0.value(phase.name) } }
            $0.key("colors")
            $0.array { for index in phases.indices { $0.value(color(index)) } }
            $0.key("x")
            $0.array {
                $0.value(range.lowerBound)
                $0.value(range.upperBound)
            }
            $0.key("steps")
            $0.array { for row in rows { $0.value(row.step) } }
            $0.key("shares")
            $0.array { for row in rows { $0.array { for share in row.shares { $0.value(share) } } } }
        }
    }
}
