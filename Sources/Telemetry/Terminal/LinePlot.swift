/// A line plot made of characters: a title, labelled axes, and the curve in braille dots (or `*` in ASCII).
public struct LinePlot: Sendable {
    public var title: String
    public var series: MetricSeries
    /// The whole size in cells, labels included.
    public var width: Int
    public var height: Int
    public var usesUnicode: Bool
    public var xLabel: String

    public init(
        title: String, series: MetricSeries, width: Int = 72, height: Int = 16, usesUnicode: Bool = true,
        xLabel: String = "step"
    ) {
        self.title = title
        self.series = series
        self.width = width
        self.height = height
        self.usesUnicode = usesUnicode
        self.xLabel = xLabel
    }

    /// The plot's lines, none wider than `width`. Values that are not finite leave gaps.
    public func lines() -> [String] {
        let points = zip(series.steps, series.values).filter { $0.1.isFinite }
        guard let first = points.first, let last = points.last else {
            return [TerminalText.clipped("\(title): no values", to: width)]
        }
        let rows = max(3, height - 3)
        let tickCount = max(2, rows / 3)
        let yRange = AxisTicks.widened(Self.range(points.map(\.1)), count: tickCount)
        let labels = yLabels(AxisTicks.values(yRange, count: tickCount), in: yRange, rows: rows)
        let gutter = labels.values.map(TerminalText.width).max() ?? 0
        let columns = width - gutter - 2
        guard columns >= 4 else { return [TerminalText.clipped("\(title): too narrow", to: width)] }

        var canvas = DotCanvas(columns: columns, rows: rows, usesUnicode: usesUnicode)
        let xRange = Double(first.0)...Double(max(last.0, first.0))
        func dot(_ point: (Int, Double)) -> (x: Int, y: Int) {
            let x = Self.place(Double(point.0), in: xRange) * Double(canvas.width - 1)
            let y = (1 - Self.place(point.1, in: yRange)) * Double(canvas.height - 1)
            return (Int(x.rounded()), Int(y.rounded()))
        }
        // Neighbours in the series are joined; a gap in it stays a gap.
        var previous: (x: Int, y: Int)?
        for (step, value) in zip(series.steps, series.values) {
            guard value.isFinite else {
                previous = nil
                continue
            }
            let next = dot((step, value))
            canvas.line(from: previous ?? next, to: next)
            previous = next
        }

        let tick = usesUnicode ? "┤" : "+"
        let wall = usesUnicode ? "│" : "|"
        var lines = [TerminalText.clipped(title, to: width)]
        for (row, text) in canvas.lines().enumerated() {
            let label = labels[row] ?? ""
            let margin = String(repeating: " ", count: gutter - TerminalText.width(label))
            lines.append("\(margin)\(label) \(labels[row] == nil ? wall : tick)\(text)")
        }
        let corner = usesUnicode ? "└" : "+"
        let floor = String(repeating: usesUnicode ? "─" : "-", count: columns)
        lines.append(String(repeating: " ", count: gutter + 1) + corner + floor)
        lines.append(String(repeating: " ", count: gutter + 2) + xLabels(first.0, last.0, columns: columns))
        return lines
    }

    private func yLabels(_ ticks: [Double], in range: ClosedRange<Double>, rows: Int) -> [Int: String] {
        var labels: [Int: String] = [:]
        for value in ticks {
            let row = Int(((1 - Self.place(value, in: range)) * Double(rows - 1)).rounded())
            labels[row] = NumberText.short(value, figures: 4)
        }
        return labels
    }

    private func xLabels(_ first: Int, _ last: Int, columns: Int) -> String {
        let left = String(first)
        let right = last == first ? "" : String(last)
        let middle = TerminalText.clipped(xLabel, to: max(0, columns - left.utf8.count - right.utf8.count - 2))
        let gap = columns - left.utf8.count - right.utf8.count - TerminalText.width(middle)
        guard gap >= 2 else { return TerminalText.clipped("\(left) \(right)", to: columns) }
        let before = gap / 2
        return left + String(repeating: " ", count: before) + middle
            + String(repeating: " ", count: gap - before) + right
    }

    /// The values' range, widened when it is a point.
    static func range(_ values: [Double]) -> ClosedRange<Double> {
        let least = values.min() ?? 0
        let most = values.max() ?? 0
        if most > least { return least...most }
        let room = least == 0 ? 1 : least.magnitude / 2
        return (least - room)...(most + room)
    }

    /// Where a value lies in a range, from 0 to 1.
    static func place(_ value: Double, in range: ClosedRange<Double>) -> Double {
        guard range.upperBound > range.lowerBound else { return 0 }
        // Halved first, so that the span of very great values stays finite.
        let place = (value / 2 - range.lowerBound / 2) / (range.upperBound / 2 - range.lowerBound / 2)
        return min(1, max(0, place))
    }
}

/// Dots in character cells: 2 × 4 braille dots a cell, or one mark a cell in ASCII.
private struct DotCanvas {
    let columns: Int
    let rows: Int
    let usesUnicode: Bool
    private var cells: [UInt8]

    var width: Int { usesUnicode ? columns * 2 : columns }
    var height: Int { usesUnicode ? rows * 4 : rows }

    init(columns: Int, rows: Int, usesUnicode: Bool) {
        self.columns = columns
        self.rows = rows
        self.usesUnicode = usesUnicode
        cells = Array(repeating: 0, count: columns * rows)
    }

    /// Bresenham's line.
    mutating func line(from start: (x: Int, y: Int), to end: (x: Int, y: Int)) {
        let dx = abs(end.x - start.x)
        let dy = -abs(end.y - start.y)
        var (x, y) = start
        var error = dx + dy
        while true {
            set(x, y)
            if x == end.x, y == end.y { return }
            let twice = 2 * error
            if twice >= dy {
                error += dy
                x += start.x < end.x ? 1 : -1
            }
            if twice <= dx {
                error += dx
                y += start.y < end.y ? 1 : -1
            }
        }
    }

    private mutating func set(_ x: Int, _ y: Int) {
        if usesUnicode {
            // The bits of the braille block: three rows of pairs, then the fourth row.
            let bits: [UInt8] = [0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80]
            cells[y / 4 * columns + x / 2] |= bits[y % 4 * 2 + x % 2]
        } else {
            cells[y * columns + x] = 1
        }
    }

    func lines() -> [String] {
        (0..<rows).map { row in
            let text = cells[row * columns..<(row + 1) * columns].map { cell -> Character in
                if cell == 0 { return " " }
                return usesUnicode ? Character(Unicode.Scalar(0x2800 + UInt32(cell))!) : "*"
            }
            return String(text)
        }
    }
}
