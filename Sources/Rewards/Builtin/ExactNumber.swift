/// A number as a fraction of two whole numbers of any length, so that equality has no rounding.
struct ExactNumber: Hashable, Sendable {
    /// More digits than this on one side of the fraction and a text is no number: the work stays small.
    static let maximumDigits = 256

    private let isNegative: Bool
    /// Decimal digits, the least one first, no zeros at the end; empty is 0.
    private let numerator: [UInt8]
    /// Not 0.
    private let denominator: [UInt8]

    /// - Parameters: ASCII digits; `exponent` is the power of ten that the numerator is multiplied by.
    init?(
        isNegative: Bool, digits: some Sequence<UInt8>, exponent: Int, denominator: some Sequence<UInt8> = [0x31]
    ) {
        guard abs(exponent) <= Self.maximumDigits else { return nil }
        var numerator = Self.parse(digits)
        var denominator = Self.parse(denominator)
        if exponent > 0, !numerator.isEmpty { numerator.insert(contentsOf: repeatElement(0, count: exponent), at: 0) }
        if exponent < 0 { denominator.insert(contentsOf: repeatElement(0, count: -exponent), at: 0) }
        let isSmall = numerator.count <= Self.maximumDigits && denominator.count <= 2 * Self.maximumDigits
        guard isSmall, denominator.contains(where: { $0 != 0 }) else { return nil }
        self.isNegative = isNegative && !numerator.isEmpty
        self.numerator = numerator
        self.denominator = denominator
    }

    static func == (left: ExactNumber, right: ExactNumber) -> Bool {
        left.isNegative == right.isNegative
            && product(left.numerator, right.denominator) == product(right.numerator, left.denominator)
    }

    /// Fractions of the same value have no common form here, so all of one sign share a hash.
    func hash(into hasher: inout Hasher) { hasher.combine(isNegative) }

    /// The nearest double, or an infinity.
    var doubleValue: Double {
        func whole(_ digits: [UInt8]) -> Double { digits.reversed().reduce(0) { $0 * 10 + Double($1) } }
        return (isNegative ? -1 : 1) * whole(numerator) / whole(denominator)
    }

    private static func parse(_ digits: some Sequence<UInt8>) -> [UInt8] {
        var values = digits.map { $0 - 0x30 }
        values.reverse()
        while values.last == 0 { values.removeLast() }
        return values
    }

    private static func product(_ left: [UInt8], _ right: [UInt8]) -> [UInt8] {
        if left.isEmpty || right.isEmpty { return [] }
        var sums = [Int](repeating: 0, count: left.count + right.count)
        for (i, a) in left.enumerated() {
            for (j, b) in right.enumerated() { sums[i + j] += Int(a) * Int(b) }
        }
        var carry = 0
        var digits = sums.map { sum in
            let value = sum + carry
            carry = value / 10
            return UInt8(value % 10)
        }
        while digits.last == 0 { digits.removeLast() }
        return digits
    }
}
