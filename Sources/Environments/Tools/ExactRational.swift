/// A fraction of 64-bit integers; nil wherever a result does not fit.
struct ExactRational: Hashable, Sendable {
    let numerator: Int
    /// Above 0, and without a common factor.
    let denominator: Int

    init(_ value: Int) {
        numerator = value
        denominator = 1
    }

    init?(_ numerator: Int, _ denominator: Int) {
        guard denominator != 0, numerator != .min, denominator != .min else { return nil }
        let common = max(1, Self.divisor(numerator.magnitude, denominator.magnitude))
        let sign = denominator < 0 ? -1 : 1
        self.numerator = sign * numerator / Int(common)
        self.denominator = sign * denominator / Int(common)
    }

    private static func divisor(_ a: UInt, _ b: UInt) -> UInt {
        var (a, b) = (a, b)
        while b != 0 { (a, b) = (b, a % b) }
        return a
    }

    var isWhole: Bool { denominator == 1 }
    var isNegative: Bool { numerator < 0 }
    var double: Double { Double(numerator) / Double(denominator) }
    /// The largest integer that is not above it.
    var floor: Int { numerator >= 0 ? numerator / denominator : -((-numerator + denominator - 1) / denominator) }
    var negated: ExactRational { ExactRational(-numerator, denominator) ?? self }

    static func + (left: Self, right: Self) -> ExactRational? {
        guard let a = left.numerator.times(right.denominator), let b = right.numerator.times(left.denominator),
            let bottom = left.denominator.times(right.denominator)
        else { return nil }
        let (top, overflow) = a.addingReportingOverflow(b)
        return overflow ? nil : ExactRational(top, bottom)
    }

    static func * (left: Self, right: Self) -> ExactRational? {
        // Common factors go first, so that only results that do not fit are refused.
        guard let a = ExactRational(left.numerator, right.denominator),
            let b = ExactRational(right.numerator, left.denominator),
            let top = a.numerator.times(b.numerator), let bottom = a.denominator.times(b.denominator)
        else { return nil }
        return ExactRational(top, bottom)
    }

    static func / (left: Self, right: Self) -> ExactRational? {
        ExactRational(right.denominator, right.numerator).flatMap { left * $0 }
    }

    static func < (left: Self, right: Self) -> Bool {
        let a = left.numerator.multipliedFullWidth(by: right.denominator)
        let b = right.numerator.multipliedFullWidth(by: left.denominator)
        return (a.high, a.low) < (b.high, b.low)
    }

    func power(_ exponent: Int) -> ExactRational? {
        var result = ExactRational(1), base = self, left = exponent.magnitude
        while left > 0 {
            if left & 1 == 1 {
                guard let next = result * base else { return nil }
                result = next
            }
            left >>= 1
            if left > 0 {
                guard let next = base * base else { return nil }
                base = next
            }
        }
        return exponent < 0 ? ExactRational(1) / result : result
    }

    /// In decimals, where they end within 18 places; else nil.
    var decimals: String? {
        var bottom = denominator, places = 0, scale = 1
        while bottom != 1 {
            guard places < 18, let next = scale.times(10) else { return nil }
            (scale, places) = (next, places + 1)
            bottom = denominator / Int(Self.divisor(UInt(denominator), UInt(scale)))
        }
        guard let digits = numerator.magnitude.times(UInt(scale / denominator)) else { return nil }
        var text = String(digits)
        if places > 0 {
            if text.utf8.count <= places { text = String(repeating: "0", count: places + 1 - text.utf8.count) + text }
            text.insert(".", at: text.index(text.endIndex, offsetBy: -places))
        }
        return (isNegative ? "-" : "") + text
    }
}

extension FixedWidthInteger {
    fileprivate func times(_ other: Self) -> Self? {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? nil : product
    }
}
