public import ChatTemplates

extension Conversation {
    /// A conversation that was had elsewhere, as it would have been had here: each reply is sampled as the template
    /// writes it when it is the newest turn. ``drift()`` then says what rendering all of it at once makes otherwise.
    /// - Throws: ``ConversationError`` with code `mask` for a reply whose tokens cannot be told from its prompt's, or
    ///   `order` if the first message is a reply; and what ``append(_:)-([ChatMessage])`` throws.
    public init(replaying messages: [ChatMessage], _ format: ChatFormat) throws {
        let replies = messages.indices.filter { messages[$0].role == "assistant" }
        guard replies.first != 0 else {
            throw ConversationError(.order, "the first message is a reply; nothing stands before it to sample it from")
        }
        try self.init(format, Array(messages[..<(replies.first ?? messages.endIndex)]))
        for (place, reply) in replies.enumerated() {
            let next = place + 1 < replies.count ? replies[place + 1] : messages.endIndex
            try appendSampled(format.newestReply(Array(messages[...reply])))
            try readReply(as: messages[reply])
            guard next > reply + 1 || next == messages.endIndex else {
                throw ConversationError(
                    .order, "messages \(reply) and \(next) are both replies, with nothing in between")
            }
            try append(Array(messages[(reply + 1)..<next]))
        }
    }
}

extension ChatFormat {
    /// The tokens of the reply that is the last message, up to the first that ends it.
    func newestReply(_ messages: [ChatMessage]) throws -> [Int32] {
        let whole = try encode(render(messages, addGenerationPrompt: false).text)
        guard let turn = try assistantTurns(messages).last else { return [] }
        switch turn.place {
        case .refused(let refusal):
            throw ConversationError(.mask, "message \(turn.message): its tokens cannot be told: \(refusal)")
        case .found(_, let tokens):
            let end = whole[tokens].firstIndex(where: endOfTurnIDs.contains).map { $0 + 1 }
            return Array(whole[tokens.lowerBound..<(end ?? tokens.upperBound)])
        }
    }
}
