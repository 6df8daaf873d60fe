/// The chart of one metric: the raw curve faint, its moving average strong, marks where a value is not finite.
struct MetricChart {
    /// More points than a chart has pixels only slow the page down.
    static let mostPoints = 800
    static let smoothing = 0.6
    /// A moving average of so few points, as of evaluations, would only mislead. The page's script knows it too.
    static let mostUnsmoothed = 12

    let name: MetricName
    let series: MetricSeries
    private let drawn: MetricSeries
    private let frame: ChartFrame

    init(name: MetricName, series: MetricSeries) {
        self.name = name
        self.series = series
        drawn = Self.thinned(series)
        let first = Double(series.steps.first ?? 0)
        let last = Double(series.steps.last ?? 0)
        let range = LinePlot.range(series.values.filter(\.isFinite))
        // A little room, so that the curve does not run along the edge.
        let room = (range.upperBound / 2 - range.lowerBound / 2) * 0.08
        let padded = (range.lowerBound - room)...(range.upperBound + room)
        let isSound = padded.lowerBound.isFinite && padded.upperBound.isFinite
        frame = ChartFrame(steps: first...max(first + 1, last), values: isSound ? padded : range)
    }

    func html(index: Int) -> HTML {
        let raw = Array(zip(drawn.steps, drawn.values))
        let weight = drawn.steps.count > Self.mostUnsmoothed ? Self.smoothing : 0
        let smooth = Array(zip(drawn.steps, drawn.smoothed(weight: weight)))
        let broken = raw.filter { !$0.1.isFinite }.map { step, _ -> HTML in
            """
            <line class="broken" x1="\(frame.x(Double(step)))" x2="\(frame.x(Double(step)))" \
            y1="\(ChartFrame.top)" y2="\(ChartFrame.bottom)"/>
            """
        }
        // A single point makes no line: show it as a dot.
        let dots =
            raw.count > 30
            ? []
            : raw.filter { $0.1.isFinite }.map { step, value -> HTML in
                "<circle class=\"dot\" cx=\"\(frame.x(Double(step)))\" cy=\"\(frame.y(value))\" r=\"2\"/>"
            }
        let last = series.values.last.map { NumberText.short($0, figures: 4) } ?? ""
        let thinning: HTML =
            drawn.steps.count < series.steps.count
            ? "<span class=\"note\">\(drawn.steps.count) of \(series.steps.count) points</span>" : ""
        return """
            <figure class="chart"><figcaption><span class="name">\(name.text)</span>\(thinning)\
            <span class="last">\(last)</span></figcaption>
            <svg viewBox="0 0 \(frame.width) \(ChartFrame.height)" data-chart="\(index)" role="img" \
            aria-label="\(name.text)">\(frame.grid { NumberText.short($0, figures: 4) })\(broken)\
            <path class="raw" d="\(frame.path(raw))"/>\(dots)<path class="smooth" d="\(frame.path(smooth))"/>\
            <g class="cursor"></g></svg></figure>

            """
    }

    /// What the page's script needs to show values and to smooth anew.
    func writeData(to writer: inout JSONWriter) {
        writer.object {
            $0.key("name")
            $0.value(name.text)
            $0.key("steps")
            $0.array { for step in drawn.steps { $0.value(step) } }
            $0.key("values")
            $0.array { for value in drawn.values { $0.value(value) } }
            $0.key("x")
            $0.array {
                $0.value(frame.steps.lowerBound)
                $0.value(frame.steps.upperBound)
            }
            $0.key("y")
            $0.array {
                $0.value(frame.values.lowerBound)
                $0.value(frame.values.upperBound)
            }
        }
    }

    /// Keeps the least and the greatest value of each stretch, in order, and all that are not finite among those kept.
    static func thinned(_ series: MetricSeries) -> MetricSeries {
        let count = series.steps.count
        guard count > mostPoints else { return series }
        let stretches = mostPoints / 2
        var thin = MetricSeries()
        for index in 0..<stretches {
            let stretch = index * count / stretches..<(index + 1) * count / stretches
            let finite = stretch.filter { series.values[$0].isFinite }
            var kept: Set<Int> = []
            if let least = finite.min(by: { series.values[$0] < series.values[$1] }) { kept.insert(least) }
            if let most = finite.max(by: { series.values[$0] < series.values[$1] }) { kept.insert(most) }
            if let broken = stretch.first(where: { !series.values[$0].isFinite }) { kept.insert(broken) }
            for index in kept.sorted() { thin.append(series.steps[index], series.values[index]) }
        }
        return thin
    }
}
