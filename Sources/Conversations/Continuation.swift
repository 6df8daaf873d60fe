import ChatTemplates
import Tokenizers

/// What a template writes between a sampled reply and the next one.
///
/// The conversation is rendered with a marker in the reply's place, so neither the reply's own text nor what the
/// template makes of earlier turns matters; what stands behind the marker is the reply's end and the new turns.
struct Continuation {
    private let format: ChatFormat
    private let messages: [ChatMessage]
    private let reply: Int

    /// Letters that no template, tokenizer or model has a meaning for.
    private static let marker = "fledgereplymarker"

    init(_ format: ChatFormat, _ messages: [ChatMessage], reply: Int) {
        self.format = format
        self.messages = messages
        self.reply = reply
    }

    /// - Parameter end: the id that ended the reply; nil when it was cut off: the template's own is then the first of
    ///   the result.
    func tokens(after end: Int32?) throws -> [Int32] {
        let (whole, closing) = try renderings()
        guard let close = closing.encoding.ids.firstIndex(where: isClosing) else {
            return try tokensOfUnclosed(whole, after: end)
        }
        // The same must stand there when the reply is the last message: a user may have written a token's text.
        guard whole.encoding.count > close, isClosing(whole.encoding.ids[close]),
            closing.encoding.ids[..<close] == whole.encoding.ids[..<close]
        else {
            let texts = [closing, whole].map { ChatFormat.quoted(format.spell($0.encoding.ids.prefix(close + 1))) }
            throw ConversationError(
                .continuation,
                "the template ends the last reply with \(texts[0]) and an earlier one with \(texts[1]); "
                    + "add the id that ends a reply to endOfTurnIDs or closingIDs")
        }
        let offset = whole.encoding.byteOffsets[close].upperBound
        try check(String(decoding: Array(whole.text.utf8)[offset...], as: UTF8.self))
        return Array(whole.encoding.ids[(end == nil ? close : close + 1)...])
    }

    /// What follows the marker in the whole, and in the conversation that ends with the reply.
    private func renderings() throws -> (whole: Following, closing: Following) {
        func renderings(_ reply: ChatMessage) throws -> (Following, Following) {
            var marked = messages
            marked[self.reply] = reply
            return (
                try following(marked, addGenerationPrompt: true),
                try following(Array(marked[...self.reply]), addGenerationPrompt: false)
            )
        }
        let message = messages[reply]
        if let marked = Self.markedCall(message), let found = try? renderings(marked) { return found }
        // No tool calls, or a template that does not write them.
        var marked = message
        for name in Self.reasoning { marked.extra[name] = nil }
        marked.content = .string(Self.marker)
        return try renderings(marked)
    }

    private static let reasoning = ["reasoning_content", "thinking", "reasoning"]

    private func isClosing(_ id: Int32) -> Bool {
        format.endOfTurnIDs.contains(id) || format.closingIDs.contains(id)
    }

    /// The template writes no token that ends a reply: all that stands behind it is context.
    private func tokensOfUnclosed(_ whole: Following, after end: Int32?) throws -> [Int32] {
        guard messages[reply].extra["tool_calls"] == nil else {
            throw ConversationError(
                .continuation,
                "the template ends replies with tool calls in none of the end-of-turn tokens "
                    + "\(format.endOfTurnIDs.sorted()); name the one it uses")
        }
        guard let start = whole.firstAfterMarker else {
            throw ConversationError(
                .continuation,
                "a token begins inside of the reply and ends behind it, in \(ChatFormat.quoted(whole.text))")
        }
        try check(String(decoding: Array(whole.text.utf8)[Self.marker.utf8.count...], as: UTF8.self))
        var ids = whole.encoding.ids[start...]
        // Where the next turn's own token ends a reply, the model has drawn it already.
        if let end, ids.first == end { ids.removeFirst() }
        return Array(ids)
    }

    /// The marker and what is rendered behind it.
    private struct Following {
        var text: String
        var encoding: Encoding
        /// Nil when a token reaches over the marker's end.
        var firstAfterMarker: Int?
    }

    private func following(_ messages: [ChatMessage], addGenerationPrompt: Bool) throws -> Following {
        let rendered = try format.render(messages, addGenerationPrompt: addGenerationPrompt).text
        let parts = rendered.divided(at: Self.marker)
        guard let after = parts.after, after.divided(at: Self.marker).after == nil else {
            let times = parts.after == nil ? "not at all" : "more than once"
            throw ConversationError(
                .continuation,
                "the template writes message \(reply), the reply, \(times): what follows it cannot be told")
        }
        // Tokenized behind the marker, as it will stand behind the reply: not at a text's beginning.
        let text = Self.marker + after, border = Self.marker.utf8.count
        let encoding = try format.tokenizer.encoding(text)
        let first = encoding.byteOffsets.firstIndex { $0.upperBound > border }
        let isClean = first.map { encoding.byteOffsets[$0].lowerBound >= border } ?? true
        return Following(text: text, encoding: encoding, firstAfterMarker: isClean ? first ?? encoding.count : nil)
    }

    /// The conversation with the reply as it was read must end alike.
    private func check(_ text: String) throws {
        // A template that refuses this reply (an empty one, say) was content with the marker, which is all it takes.
        guard let rendered = try? format.render(messages, addGenerationPrompt: true).text else { return }
        guard rendered.utf8.count >= text.utf8.count, rendered.utf8.suffix(text.utf8.count).elementsEqual(text.utf8)
        else {
            throw ConversationError(
                .continuation,
                "what the template writes behind message \(reply), the reply, depends on the reply's text")
        }
    }

    /// The reply with the marker in its last tool call's arguments, which templates write last.
    private static func markedCall(_ message: ChatMessage) -> ChatMessage? {
        guard case .array(var calls)? = message.extra["tool_calls"], let last = calls.popLast(),
            let call = marked(call: last)
        else { return nil }
        var message = message
        for name in reasoning { message.extra[name] = nil }
        message.extra["tool_calls"] = .array(calls + [call])
        return message
    }

    private static func marked(call: TemplateValue) -> TemplateValue? {
        guard case .object(var object) = call else { return nil }
        if let function = object["function"] {
            guard let marked = marked(call: function) else { return nil }
            object["function"] = marked
            return .object(object)
        }
        // Templates write arguments' text as it is and their objects as JSON.
        if case .string? = object["arguments"] {
            object["arguments"] = .string("{\"marker\": \"\(marker)\"}")
        } else {
            object["arguments"] = .object(["marker": .string(marker)])
        }
        return .object(object)
    }
}
