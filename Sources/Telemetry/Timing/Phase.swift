/// A part of a training step. Open: a loop may have phases of its own.
public struct Phase: Hashable, Sendable, CustomStringConvertible {
    public let name: String

    /// - Throws: `TelemetryError` with code `invalidName` unless the name can stand in `time/<name>_s`.
    public init(_ name: String) throws(TelemetryError) {
        guard Self.isValid(name) else {
            throw TelemetryError(
                .invalidName, "phase name '\(name)' must be made of one or more letters, digits, _ - . @ =")
        }
        self.name = name
    }

    public var description: String { name }

    private static func isValid(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.allSatisfy(MetricName.isAllowed)
    }
}

extension Phase: ExpressibleByStringLiteral {
    /// A name written in the source. A literal that breaks the rule is a programming error and stops the program.
    public init(stringLiteral literal: String) {
        precondition(Self.isValid(literal), "phase name '\(literal)'")
        name = literal
    }
}

extension Phase {
    public static let generate: Phase = "generate"
    public static let score: Phase = "score"
    public static let oldLogProb: Phase = "old_log_prob"
    public static let refLogProb: Phase = "ref_log_prob"
    public static let values: Phase = "values"
    public static let advantage: Phase = "advantage"
    public static let updateCritic: Phase = "update_critic"
    public static let update: Phase = "update"
    public static let evaluate: Phase = "evaluate"
    public static let save: Phase = "save"
    /// What no phase measured.
    public static let other: Phase = "other"
}
