/// Numbers as people read them, independent of any locale.
enum NumberText {
    /// With so many digits after the point: `fixed(0.1234, 2)` is `0.12`.
    static func fixed(_ value: Double, _ digits: Int) -> String {
        guard value.isFinite else { return value.isNaN ? "nan" : (value > 0 ? "inf" : "-inf") }
        let unit = power(10, digits)
        let scaled = (value.magnitude * unit).rounded()
        guard scaled < 1e15 else { return value.description }
        let whole = Int(scaled)
        let sign = value < 0 && whole > 0 ? "-" : ""
        if digits == 0 { return sign + String(whole) }
        let fraction = String(whole % Int(unit))
        return sign + String(whole / Int(unit)) + "."
            + String(repeating: "0", count: digits - fraction.utf8.count) + fraction
    }

    /// In about `figures` significant figures, short: `0.5123`, `1234`, `12.3k`, `4.1e-05`.
    static func short(_ value: Double, figures: Int = 3) -> String {
        let size = value.magnitude
        if size == 0 || !value.isFinite { return fixed(value, 0) }
        if size < 1e-4 || size >= 1e12 { return scientific(value, figures: figures) }
        for (limit, unit, suffix) in [(1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")] where size >= limit {
            return short(value / unit, figures: figures) + suffix
        }
        let exponent = decimalExponent(size)
        return trimmed(fixed(value, max(0, figures - 1 - exponent)))
    }

    static func percent(_ share: Double) -> String { fixed(share * 100, 0) + "%" }

    /// A length of time: `8.2s`, `2m05s`, `1h02m`, `3d04h`.
    static func duration(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds >= 0, seconds < 1e9 else { return "?" }
        if seconds < 9.95 { return fixed(seconds, 1) + "s" }
        let whole = Int(seconds.rounded())
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        if whole < 60 { return "\(whole)s" }
        if whole < 3600 { return "\(whole / 60)m\(two(whole % 60))s" }
        if whole < 86400 { return "\(whole / 3600)h\(two(whole / 60 % 60))m" }
        return "\(whole / 86400)d\(two(whole / 3600 % 24))h"
    }

    private static func scientific(_ value: Double, figures: Int) -> String {
        var exponent = decimalExponent(value.magnitude)
        // In two steps, since 10 to the power 308 is as far as one goes.
        var mantissa = value / power(10, exponent / 2) / power(10, exponent - exponent / 2)
        if mantissa.magnitude.rounded() >= 10 {
            mantissa /= 10
            exponent += 1
        }
        let sign = exponent < 0 ? "-" : "+"
        let digits = String(exponent.magnitude)
        return trimmed(fixed(mantissa, figures - 1)) + "e" + sign + (digits.utf8.count < 2 ? "0" : "") + digits
    }

    private static func trimmed(_ text: String) -> String {
        guard text.utf8.contains(UInt8(ascii: ".")) else { return text }
        var text = text
        while text.utf8.last == UInt8(ascii: "0") { text.removeLast() }
        if text.utf8.last == UInt8(ascii: ".") { text.removeLast() }
        return text
    }

    /// The power of ten of a positive finite number.
    static func decimalExponent(_ value: Double) -> Int {
        var exponent = 0
        var rest = value
        while rest >= 10 {
            rest /= 10
            exponent += 1
        }
        while rest < 1 {
            rest *= 10
            exponent -= 1
        }
        return exponent
    }

    static func power(_ base: Double, _ exponent: Int) -> Double {
        let power = (0..<exponent.magnitude).reduce(1.0) { product, _ in product * base }
        return exponent < 0 ? 1 / power : power
    }
}

/// Round numbers across a range, for the axes of plots.
enum AxisTicks {
    /// About `count` multiples of 1, 2, 2.5 or 5 times a power of ten that lie in the range.
    static func values(_ range: ClosedRange<Double>, count: Int) -> [Double] {
        guard let step = step(range, count: count) else { return [range.lowerBound, range.upperBound] }
        let first = (range.lowerBound / step).rounded(.up)
        let last = (range.upperBound / step).rounded(.down)
        guard last >= first, last - first < 1000 else { return [range.lowerBound, range.upperBound] }
        return stride(from: first, through: last, by: 1).map { $0 * step }
    }

    /// The range widened so that it begins and ends with a tick.
    static func widened(_ range: ClosedRange<Double>, count: Int) -> ClosedRange<Double> {
        guard let step = step(range, count: count) else { return range }
        let lower = (range.lowerBound / step).rounded(.down) * step
        let upper = (range.upperBound / step).rounded(.up) * step
        return lower <= range.lowerBound && upper >= range.upperBound && upper.isFinite && lower.isFinite
            ? lower...upper : range
    }

    private static func step(_ range: ClosedRange<Double>, count: Int) -> Double? {
        let span = range.upperBound - range.lowerBound
        guard span > 0, span.isFinite, count > 0 else { return nil }
        let rough = span / Double(count)
        guard rough > 0 else { return nil }
        let unit = NumberText.power(10, NumberText.decimalExponent(rough))
        guard unit > 0, unit.isFinite else { return nil }
        // A step no smaller than a bit of the bounds: below that the multiples do not differ.
        let step = unit * ([1, 2, 2.5, 5].first { unit * $0 >= rough } ?? 10)
        return step > max(range.lowerBound.magnitude, range.upperBound.magnitude).ulp ? step : nil
    }
}
