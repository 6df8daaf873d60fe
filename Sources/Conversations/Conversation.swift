public import ChatTemplates

/// A conversation of several turns as the model saw and wrote it, token in and token out.
///
/// Tokens that a model sampled are kept as they are: a further turn adds only what the template writes between the
/// turns, so nothing that was sampled is ever rendered, tokenized or masked again. ``drift()`` says where a fresh
/// rendering would differ.
///
///     var talk = try Conversation(format, [.user("2 + 2?")])
///     // Sample from talk.tokens …
///     try talk.appendSampled(ids, logProbs: logProbs)
///     try talk.append([ChatMessage(role: "tool", content: "4")])
///     // talk.tokens is the next prompt.
public struct Conversation: Sendable {
    /// A stretch of tokens of one origin.
    public struct Turn: Hashable, Sendable {
        public enum Origin: String, Hashable, Sendable {
            /// Rendered: the messages of others, the missing end of a reply, the prompt for the next one.
            case context
            /// Written by the model.
            case sampled
        }

        public var origin: Origin
        public var tokens: Range<Int>
        public var messages: Range<Int>
        /// False for a sampled turn without an end-of-turn token: it was cut off, or goes on.
        public var isComplete: Bool
    }

    public let format: ChatFormat
    public private(set) var messages: [ChatMessage]
    /// Everything so far; the prompt for the next reply whenever one is due.
    public private(set) var tokens: [Int32] = []
    /// 1 for sampled tokens, else 0.
    public private(set) var responseMask: [UInt8] = []
    /// What the sampler recorded; NaN for sampled tokens without a record, 0 for all others.
    public private(set) var logProbs: [Float] = []
    public private(set) var turns: [Turn] = []

    /// Begins with messages, earlier replies among them if there are any; ends ready for the model's reply.
    /// - Throws: `TemplateError`, `TokenizerError`.
    public init(_ format: ChatFormat, _ messages: [ChatMessage]) throws {
        self.format = format
        self.messages = messages
        try renderContext()
    }

    /// The index of the last sampled turn.
    private var lastSampled: Int? { turns.lastIndex { $0.origin == .sampled } }

    /// Tokens up to the end of the last sampled one.
    private var sampledEnd: Int { lastSampled.map { turns[$0].tokens.upperBound } ?? 0 }

    /// Whether the model is to speak: the conversation ends with what opens its turn.
    public var awaitsReply: Bool { turns.last?.origin != .sampled }

    // MARK: - The model's turns

    /// Adds what the model sampled, as it is. A reply that was cut off may be added piece by piece.
    /// - Parameters:
    ///   - ids: with the end-of-turn id if one was drawn.
    ///   - logProbs: one for each id; nil leaves NaN.
    /// - Throws: ``ConversationError``: `sampled` for no ids, negative ids, another number of log-probabilities, or ids
    ///   behind an end-of-turn id; `order` after a reply that is complete.
    public mutating func appendSampled(_ ids: [Int32], logProbs: [Float]? = nil) throws {
        guard !ids.isEmpty else { throw ConversationError(.sampled, "a reply needs at least one token") }
        if let bad = ids.first(where: { $0 < 0 }) { throw ConversationError(.sampled, "token id \(bad) is negative") }
        if let logProbs, logProbs.count != ids.count {
            throw ConversationError(.sampled, "\(logProbs.count) log-probabilities for \(ids.count) tokens")
        }
        if let end = ids.dropLast().firstIndex(where: format.endOfTurnIDs.contains) {
            throw ConversationError(
                .sampled, "token \(end) of \(ids.count), \(ids[end]), ends the turn; cut what follows it")
        }
        var turn = turns[turns.count - 1]
        if turn.origin == .sampled {
            guard !turn.isComplete else {
                throw ConversationError(.order, "the reply is complete; add the next message before sampling on")
            }
            turns.removeLast()
            messages.removeLast()
        } else {
            turn = Turn(
                origin: .sampled, tokens: tokens.count..<tokens.count, messages: messages.count..<messages.count + 1,
                isComplete: false)
        }
        tokens += ids
        responseMask += [UInt8](repeating: 1, count: ids.count)
        self.logProbs += logProbs ?? [Float](repeating: .nan, count: ids.count)
        turn.tokens = turn.tokens.lowerBound..<tokens.count
        turn.isComplete = format.endOfTurnIDs.contains(tokens[tokens.count - 1])
        turns.append(turn)
        let spoken = tokens[turn.tokens].dropLast(turn.isComplete ? 1 : 0)
        messages.append(format.parser(format.spell(spoken)))
    }

    /// Replaces what the last reply was read as, say when its tool calls are parsed elsewhere. No token changes.
    /// - Throws: ``ConversationError`` with code `order` unless a reply is last.
    public mutating func readReply(as message: ChatMessage) throws {
        guard let turn = turns.last, turn.origin == .sampled else {
            throw ConversationError(.order, "there is no reply to read: the conversation does not end with one")
        }
        messages[turn.messages.lowerBound] = message
    }

    // MARK: - The others' turns

    /// Adds messages of others: user turns, tool results. Several calls between two replies are as good as one.
    /// - Throws: ``ConversationError`` with code `continuation` when the tokens between the turns cannot be told;
    ///   `TemplateError`, `TokenizerError`. The conversation is then as before.
    public mutating func append(_ new: [ChatMessage]) throws {
        guard !new.isEmpty else { return }
        let before = self
        messages += new
        do { try renderContext() } catch {
            self = before
            throw error
        }
    }

    public mutating func append(_ message: ChatMessage) throws { try append([message]) }

    /// Makes the tokens behind the last sampled one anew from the messages there.
    private mutating func renderContext() throws {
        let kept = sampledEnd
        let context: [Int32], firstMessage: Int
        if let last = lastSampled {
            let reply = turns[last]
            context = try Continuation(format, messages, reply: reply.messages.lowerBound)
                .tokens(after: reply.isComplete ? tokens[kept - 1] : nil)
            firstMessage = reply.messages.upperBound
            turns.removeSubrange((last + 1)...)
        } else {
            context = try format.encode(format.render(messages, addGenerationPrompt: true).text)
            firstMessage = 0
            turns.removeAll()
        }
        tokens.removeSubrange(kept...)
        tokens += context
        responseMask.removeSubrange(kept...)
        responseMask += [UInt8](repeating: 0, count: context.count)
        logProbs.removeSubrange(kept...)
        logProbs += [Float](repeating: 0, count: context.count)
        turns.append(
            Turn(
                origin: .context, tokens: kept..<tokens.count, messages: firstMessage..<messages.count, isComplete: true
            )
        )
    }
}

// MARK: - For training

/// A conversation as a trainer takes it: what came before the first reply, and all that follows with its mask.
public struct ConversationRecord: Hashable, Sendable {
    public var prompt: [Int32]
    /// Up to the last sampled token; the context between the replies is in it.
    public var response: [Int32]
    /// 1 for sampled tokens; as long as `response`.
    public var responseMask: [UInt8]
    public var logProbs: [Float]
    /// Whether the last reply has no end-of-turn token.
    public var isTruncated: Bool
}

extension Conversation {
    /// The conversation up to the last sampled token; nil before the first.
    public var record: ConversationRecord? {
        guard let first = turns.first(where: { $0.origin == .sampled }), let last = lastSampled else { return nil }
        let response = first.tokens.lowerBound..<turns[last].tokens.upperBound
        return ConversationRecord(
            prompt: Array(tokens[..<response.lowerBound]), response: Array(tokens[response]),
            responseMask: Array(responseMask[response]), logProbs: Array(logProbs[response]),
            isTruncated: !turns[last].isComplete)
    }
}
