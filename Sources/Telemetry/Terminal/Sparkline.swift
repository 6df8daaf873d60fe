/// A series in one row of characters, from its least to its greatest value.
public enum Sparkline {
    private static let blocks: [Character] = Array("▁▂▃▄▅▆▇█")
    private static let marks: [Character] = Array("_.-=+*#@")

    /// At most `width` characters. A longer series is averaged in equal stretches; a value that is not finite is `!`.
    public static func text(_ values: some Collection<Double>, width: Int, usesUnicode: Bool = true) -> String {
        let points = stretches(Array(values), count: width)
        let finite = points.filter(\.isFinite)
        guard let least = finite.min(), let most = finite.max() else {
            return String(repeating: "!", count: points.count)
        }
        let levels = usesUnicode ? blocks : marks
        return String(
            points.map { value in
                guard value.isFinite else { return "!" }
                // Halved first, so that the span of very great values stays finite.
                let place = most > least ? (value / 2 - least / 2) / (most / 2 - least / 2) : 0.5
                return levels[min(levels.count - 1, Int(place * Double(levels.count)))]
            })
    }

    /// Means over `count` equal stretches; the values themselves when there are no more than that.
    static func stretches(_ values: [Double], count: Int) -> [Double] {
        guard count > 0 else { return [] }
        guard values.count > count else { return values }
        return (0..<count).map { index in
            let stretch = values[index * values.count / count..<(index + 1) * values.count / count]
            return stretch.reduce(0) { $0 + $1 / Double(stretch.count) }
        }
    }
}
