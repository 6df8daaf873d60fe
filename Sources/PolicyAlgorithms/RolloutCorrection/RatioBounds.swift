/// Bounds of an importance ratio, from a text `upper` or `lower_upper`.
public struct RatioBounds: Sendable, Hashable {
    /// nil where ratios are only cut from above.
    public let lower: Double?
    public let upper: Double

    public init(lower: Double? = nil, upper: Double) {
        self.lower = lower
        self.upper = upper
    }

    /// - Throws: ``AlgorithmError`` (`badSetting`) unless the text has one or two positive numbers in order.
    public init(_ text: String, setting: String) throws {
        let parts = text.split(separator: "_", maxSplits: 1, omittingEmptySubsequences: false)
        let numbers = parts.map { Double(String($0.filter { $0 != " " })) }
        guard let last = numbers.last, let upper = last, upper > 0, numbers.allSatisfy({ $0 ?? 0 > 0 }) else {
            throw AlgorithmError(
                .badSetting, setting, "'\(text)' is no threshold; give a positive number, or two as 0.5_2.0")
        }
        lower = numbers.count > 1 ? numbers[0] : nil
        self.upper = upper
        if let lower, lower > upper {
            throw AlgorithmError(.badSetting, setting, "the lower bound of '\(text)' is above the upper one")
        }
    }
}
