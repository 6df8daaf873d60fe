import ChatTemplates

/// A chat of one person with a model: the conversation, and what can be taken back of it.
public struct ChatSession: Sendable {
    public let format: ChatFormat
    public private(set) var system: String?
    /// Nil before the first question.
    public private(set) var conversation: Conversation?
    /// The conversation before each question.
    private var earlier: [Conversation?] = []

    public init(_ format: ChatFormat, system: String? = nil) {
        self.format = format
        self.system = system
    }

    /// Questions asked and not taken back.
    public var questions: Int { earlier.count }

    /// Asks; the tokens to sample from are in the result.
    /// - Throws: `TemplateError`, `TokenizerError`, ``ConversationError``; nothing is asked then.
    public mutating func ask(_ text: String) throws -> [Int32] {
        let before = conversation
        let next: Conversation
        if var talk = conversation {
            try talk.append(.user(text))
            next = talk
        } else {
            next = try Conversation(format, (system.map { [.system($0)] } ?? []) + [.user(text)])
        }
        earlier.append(before)
        conversation = next
        return next.tokens
    }

    /// Takes the model's answer, which may have been stopped before its end; no tokens at all take the question back.
    /// - Throws: ``ConversationError``.
    public mutating func answer(_ ids: [Int32], logProbs: [Float]) throws {
        guard !ids.isEmpty else {
            _ = undo()
            return
        }
        guard var talk = conversation else { throw ConversationError(.order, "an answer came before any question") }
        try talk.appendSampled(ids, logProbs: logProbs)
        conversation = talk
    }

    /// Takes back the last question and its answer; false when there is none.
    public mutating func undo() -> Bool {
        guard let before = earlier.popLast() else { return false }
        conversation = before
        return true
    }

    public mutating func reset() {
        conversation = nil
        earlier = []
    }

    /// Sets the system turn, nil or empty for none, and begins anew: it stands before all that was said.
    public mutating func setSystem(_ text: String?) {
        system = text.flatMap { $0.isEmpty ? nil : $0 }
        reset()
    }
}
