/// The drawing area of a chart: where values lie in it, and its grid. Lengths are SVG units.
struct ChartFrame {
    static let height = 176.0
    static let left = 46.0
    static let top = 10.0
    static let bottom = 152.0
    /// What stays free at the right; the page's script knows it too.
    static let rightMargin = 12.0

    var width = 420.0
    let steps: ClosedRange<Double>
    let values: ClosedRange<Double>

    var right: Double { width - Self.rightMargin }

    func x(_ step: Double) -> Double { Self.left + LinePlot.place(step, in: steps) * (right - Self.left) }
    func y(_ value: Double) -> Double { Self.bottom - LinePlot.place(value, in: values) * (Self.bottom - Self.top) }

    /// The lines and labels behind the curves.
    func grid(label: (Double) -> String) -> HTML {
        let rows = AxisTicks.values(values, count: 4).map { value -> HTML in
            let y = y(value)
            return """
                <line class="grid" x1="\(Self.left)" x2="\(right)" y1="\(y)" y2="\(y)"/>\
                <text class="tick" x="\(Self.left - 6)" y="\(y + 3.5)" text-anchor="end">\(label(value))</text>
                """
        }
        let columns = AxisTicks.values(steps, count: 5).filter { $0 == $0.rounded() }.map { step -> HTML in
            """
            <text class="tick" x="\(x(step))" y="\(Self.bottom + 16)" text-anchor="middle">\
            \(NumberText.short(step, figures: 4))</text>
            """
        }
        return HTML(joining: rows + columns)
    }

    /// A path through the points; one that is not finite leaves a gap.
    func path(_ points: [(step: Int, value: Double)]) -> HTML {
        var path = ""
        var isOpen = false
        for (step, value) in points {
            guard value.isFinite else {
                isOpen = false
                continue
            }
            path += isOpen ? "L" : "M"
            path += NumberText.fixed(x(Double(step)), 1) + " " + NumberText.fixed(y(value), 1)
            isOpen = true
        }
        return "\(path)"
    }
}
