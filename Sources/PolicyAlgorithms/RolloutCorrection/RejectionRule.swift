#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// When rollout correction takes a token, or a whole answer, out of the loss: where a measure of how far the training policy is from
/// the sampler leaves its bounds. With ρ = π / π_sampler the measures are k1 = −log ρ, k2 = ½ (log ρ)² and k3 = ρ − 1 − log ρ.
///
/// Source: verl `rollout_corr_helper.compute_rollout_rejection_mask`.
public struct RejectionRule: Sendable, Hashable {
    /// What is measured: each token, or the sum, mean or maximum over an answer, which then stands or falls as a whole.
    public enum Scope: String, Sendable, Hashable, CaseIterable {
        case token
        case sequenceSum = "seq_sum"
        case sequenceMean = "seq_mean"
        case sequenceMax = "seq_max"
    }

    public enum Measure: String, Sendable, Hashable, CaseIterable { case k1, k2, k3 }

    public let scope: Scope
    public let measure: Measure
    /// Bounds of the measure: for k1 the logarithms of the configured ratios, for k2 and k3 `lower` is nil.
    public let lower: Double?, upper: Double

    /// verl's name, as `seq_mean_k3`.
    public var name: String { "\(scope.rawValue)_\(measure.rawValue)" }

    public static let names = Scope.allCases.flatMap { scope in
        Measure.allCases.filter { scope != .sequenceMax || $0 != .k1 }.map { "\(scope.rawValue)_\($0.rawValue)" }
    }

    /// - Parameters:
    ///   - name: one of ``names``
    ///   - threshold: `upper` for k2 and k3; for k1 ratios `lower_upper`, or `upper` for 1/upper to upper.
    /// - Throws: ``AlgorithmError`` (`badSetting`) for an unknown name or a threshold out of range.
    public init(name: String, threshold: String) throws {
        guard Self.names.contains(name), let split = name.lastIndex(of: "_"),
            let scope = Scope(rawValue: String(name[..<split])),
            let measure = Measure(rawValue: String(name[name.index(after: split)...]))
        else {
            throw AlgorithmError(
                .badSetting, "rollout_rs", "'\(name)' is no rule; known are \(Self.names.joined(separator: ", "))")
        }
        self.scope = scope
        self.measure = measure
        let bounds = try RatioBounds(threshold, setting: "rollout_rs_threshold of \(name)")
        if measure == .k1 {
            lower = log(bounds.lower ?? 1 / bounds.upper)
            upper = log(bounds.upper)
            guard let lower, lower <= upper else {
                throw AlgorithmError(
                    .badSetting, "rollout_rs_threshold of \(name)",
                    "'\(threshold)' gives a lower bound above the upper one"
                )
            }
        } else {
            guard bounds.lower == nil else {
                throw AlgorithmError(
                    .badSetting, "rollout_rs_threshold of \(name)", "'\(threshold)' has two bounds; give the upper one"
                )
            }
            lower = nil
            upper = bounds.upper
        }
    }

    /// The rules of a configuration: names and thresholds with commas between; one threshold serves all rules.
    public static func rules(names: String, thresholds: String?) throws -> [RejectionRule] {
        let names = parts(names), thresholds = parts(thresholds ?? "")
        guard !names.isEmpty, thresholds.count == 1 || thresholds.count == names.count else {
            throw AlgorithmError(
                .badSetting, "rollout_rs",
                "\(names.count) rules and \(thresholds.count) thresholds; give one threshold, or one a rule")
        }
        var seen: Set<String> = []
        return try names.enumerated().compactMap { index, name in
            guard seen.insert(name).inserted else { return nil }
            return try RejectionRule(name: name, threshold: thresholds.count == 1 ? thresholds[0] : thresholds[index])
        }
    }

    private static func parts(_ text: String) -> [String] {
        text.split(separator: ",").map { String($0.filter { $0 != " " }) }.filter { !$0.isEmpty }
    }
}
