/// The name of a metric: `group/name` or deeper, as `actor/loss`, `critic/score/mean`, `time/generate_s`.
///
/// Components are joined by `/`; each holds ASCII letters, digits, `_`, `-`, `.`, `@` or `=`, and none is empty.
public struct MetricName: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let text: String

    /// - Throws: `TelemetryError` with code `invalidName`.
    public init(_ text: String) throws(TelemetryError) {
        if let problem = Self.problem(with: text) {
            throw TelemetryError(
                .invalidName,
                "metric name '\(text)' \(problem); write it as 'group/name' with letters, digits, _ - . @ =")
        }
        self.text = text
    }

    /// The part before the first `/`: metrics of one group are drawn together.
    public var group: String { String(text.prefix { $0 != "/" }) }

    /// Whether the value depends on the clock. All other metrics are reproducible bit for bit under one seed.
    public var dependsOnClock: Bool { text.hasPrefix("perf/") || text.hasPrefix("time/") }

    public var description: String { text }

    public static func < (a: MetricName, b: MetricName) -> Bool { a.text < b.text }

    /// The name one level below: `"critic/score" / "mean"`.
    /// - Throws: `TelemetryError` with code `invalidName`.
    public func appending(_ component: String) throws(TelemetryError) -> MetricName {
        try MetricName(text + "/" + component)
    }

    private static func problem(with text: String) -> String? {
        if text.isEmpty { return "is empty" }
        let components = text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        if components.contains(where: \.isEmpty) { return "has an empty component" }
        if components.count < 2 { return "has no group" }
        return text.utf8.allSatisfy { isAllowed($0) || $0 == UInt8(ascii: "/") } ? nil : "holds a character not allowed"
    }

    static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "@"), UInt8(ascii: "="):
            true
        default: false
        }
    }
}

extension MetricName: ExpressibleByStringLiteral {
    /// A name written in the source. A literal that breaks the rule is a programming error and stops the program.
    public init(stringLiteral literal: String) {
        if let problem = Self.problem(with: literal) { preconditionFailure("metric name '\(literal)' \(problem)") }
        text = literal
    }
}

extension MetricName {
    // The names that the views look for; they follow verl's where its users would know them.
    public static let score: MetricName = "critic/score/mean"
    public static let reward: MetricName = "critic/rewards/mean"
    /// Of supervised training.
    public static let loss: MetricName = "train/loss"
    public static let kl: MetricName = "actor/kl"
    public static let entropy: MetricName = "actor/entropy"
    public static let responseLength: MetricName = "response_length/mean"
    public static let tokensPerSecond: MetricName = "perf/tokens_per_second"
    public static let stepSeconds: MetricName = "time/step_s"
}
