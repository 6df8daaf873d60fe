/// A regular expression that always runs in time linear in the text: hostile patterns have nothing to blow up.
///
/// Understood: literals; `.`; classes `[a-z]`, `[^…]`, `\d \w \s` and their capitals (ASCII); `^ $ \b \B`; groups `(…)`,
/// `(?:…)`; `|`; `* + ? {m} {m,} {m,n}`, each lazy with a `?` behind; `\n \t \r \f \v \xHH \uHHHH`; flags at the start,
/// `(?i)` ignore case, `(?s)` the dot matches line ends, `(?m)` `^` and `$` match at lines. Which of several matches is
/// taken is as in Perl and Python, except in loops whose body can match nothing, such as `(|a)*`. Not understood, and
/// refused by name: back-references and look-around, which have no linear-time matching. Works on Unicode scalars.
public struct Pattern: Hashable, Sendable, CustomStringConvertible {
    /// The pattern as it was written.
    public let description: String
    /// Groups that capture, the whole match not counted.
    public let groupCount: Int
    let program: PatternProgram

    /// Steps (scalars of the text times instructions of the pattern) that one match may take at most.
    public static let maximumWork = 50_000_000

    /// - Throws: `RewardError.badPattern` with the place of what cannot be read.
    public init(_ pattern: String) throws {
        var parser = PatternParser(pattern)
        let syntax = try parser.parse()
        description = pattern
        groupCount = parser.groupCount
        program = try PatternProgram(syntax, flags: parser.flags, groupCount: groupCount, pattern: pattern)
    }

    public struct Match: Hashable, Sendable {
        /// The whole match, then each group; nil for a group that took no part.
        public let groups: [Substring?]
    }

    /// The leftmost match; nil when there is none.
    /// - Throws: `TooMuchWork` when the text is too long for the bound.
    public func firstMatch(in text: String) throws(TooMuchWork) -> Match? { try match(text, whole: false) }

    /// The match that covers all of the text; nil when there is none.
    /// - Throws: `TooMuchWork` when the text is too long for the bound.
    public func wholeMatch(in text: String) throws(TooMuchWork) -> Match? { try match(text, whole: true) }

    public struct TooMuchWork: Error, Hashable, CustomStringConvertible {
        public let description: String
    }

    private func match(_ text: String, whole: Bool) throws(TooMuchWork) -> Match? {
        let scalars = ContiguousArray(text.unicodeScalars)
        let work = scalars.count.multipliedReportingOverflow(by: program.instructions.count)
        guard !work.overflow, work.partialValue <= Self.maximumWork else {
            throw TooMuchWork(
                description: "a text of \(scalars.count) scalars is too long for the pattern '\(self)', which has "
                    + "\(program.instructions.count) instructions")
        }
        var machine = PatternMachine(program: program, text: scalars, whole: whole)
        guard let slots = machine.run() else { return nil }
        let indices = Array(text.unicodeScalars.indices) + [text.endIndex]
        return Match(
            groups: stride(from: 0, to: slots.count, by: 2).map { slot in
                slots[slot] < 0 || slots[slot + 1] < 0 ? nil : text[indices[slots[slot]]..<indices[slots[slot + 1]]]
            })
    }
}
