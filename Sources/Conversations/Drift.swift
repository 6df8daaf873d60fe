import ChatTemplates

/// Where a fresh rendering of a conversation departs from the tokens that were kept.
///
/// Nothing is wrong with the kept tokens: they are what the model saw and wrote. A trainer that rendered the messages
/// again would train on other ones.
public struct Drift: Hashable, Sendable, CustomStringConvertible {
    /// Open, so that callers keep a default case.
    public struct Kind: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ name: String) { description = name }

        /// Later messages make the template render this turn otherwise, as where earlier thinking is taken out.
        public static let rewritesHistory = Kind("the template rewrites earlier turns")
        /// The same text as other tokens.
        public static let tokenization = Kind("the same text is tokenized otherwise")
        /// The reply was cut off, or ended with another token than the template's.
        public static let endOfTurn = Kind("the reply does not end with the template's end-of-turn token")
        /// The reply's message is not rendered as the reply was sampled: the template trims it, or writes the JSON of a
        /// tool call its own way.
        public static let otherText = Kind("the reply is rendered otherwise than it was sampled")
    }

    public var kind: Kind
    /// The first token that differs, in both.
    public var index: Int
    /// Which of ``Conversation/turns`` it is in.
    public var turn: Int
    /// Up to eight ids from there on, and the text of a few more tokens on either side.
    public var kept: [Int32]
    public var rendered: [Int32]
    public var keptText: String
    public var renderedText: String

    public var description: String {
        "token \(index), turn \(turn): \(kind): kept \(kept) \(ChatFormat.quoted(keptText)), "
            + "rendered \(rendered) \(ChatFormat.quoted(renderedText))"
    }
}

extension Conversation {
    /// Renders and tokenizes the messages anew and says where that first differs from what was kept; nil if nowhere.
    /// What a template writes behind the last reply's end-of-turn token, a newline mostly, is no difference.
    /// - Throws: `TemplateError`, `TokenizerError`.
    public func drift() throws -> Drift? {
        let fresh = try format.encode(format.render(messages, addGenerationPrompt: awaitsReply).text)
        let index = zip(tokens, fresh).prefix { $0 == $1 }.count
        if index == tokens.count {
            let last = turns[turns.count - 1]
            if index == fresh.count || (last.origin == .sampled && last.isComplete) { return nil }
        }
        // At the very end the difference belongs to the turn before.
        let turn = turns.lastIndex { $0.tokens.lowerBound <= index && !$0.tokens.isEmpty } ?? 0
        return Drift(
            kind: try kind(at: index, turn, fresh), index: index, turn: turn,
            kept: Array(tokens[index...].prefix(8)), rendered: Array(fresh[min(index, fresh.count)...].prefix(8)),
            keptText: surroundings(of: index, in: tokens), renderedText: surroundings(of: index, in: fresh))
    }

    private func surroundings(of index: Int, in ids: [Int32]) -> String {
        format.spell(ids[max(0, index - 4)..<min(ids.count, index + 8)])
    }

    private func kind(at index: Int, _ turn: Int, _ fresh: [Int32]) throws -> Drift.Kind {
        if meetAgain(tokens[index...], fresh[index...]) { return .tokenization }
        let isEnd = { format.endOfTurnIDs.contains($0) }
        let place = turns[turn]
        if place.origin == .sampled, index < fresh.count, isEnd(fresh[index]),
            index == place.tokens.upperBound || index == place.tokens.upperBound - 1 && place.isComplete
        {
            return .endOfTurn
        }
        // The same turn as the last one: if it is rendered as kept then, later messages made the difference.
        if turn < turns.count - 1 {
            let messages = messages[..<place.messages.upperBound]
            let early = try? format.encode(format.render(messages, addGenerationPrompt: place.origin == .context).text)
            if let early, early.count > index, early[index] == tokens[index] { return .rewritesHistory }
        }
        return place.origin == .sampled ? .otherText : .rewritesHistory
    }

    /// Whether the ids spell the same text until, after few tokens, both have come to the same place in it.
    private func meetAgain(_ kept: ArraySlice<Int32>, _ fresh: ArraySlice<Int32>) -> Bool {
        let reach = 32
        var (left, right) = (1, 1)
        while left <= min(reach, kept.count), right <= min(reach, fresh.count) {
            let (one, other) = (
                Array(format.spell(kept.prefix(left)).utf8), Array(format.spell(fresh.prefix(right)).utf8)
            )
            // A character whose bytes are spread over tokens is not whole yet: go on.
            let broken = one.suffix(3) == [0xEF, 0xBF, 0xBD] || other.suffix(3) == [0xEF, 0xBF, 0xBD]
            if one == other, !broken { return true }
            guard broken || one.starts(with: other) || other.starts(with: one) else { return false }
            if one.count < other.count { left += 1 } else { right += 1 }
        }
        return false
    }
}
