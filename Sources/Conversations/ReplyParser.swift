public import ChatTemplates

/// Makes a message of the text that a model sampled, for templates that are to render it again.
///
/// Formats with tool calls bring their own parser, which fills `extra["tool_calls"]`.
public struct ReplyParser: Sendable {
    private let parse: @Sendable (String) -> ChatMessage

    /// - Parameter parse: takes the text of a reply without the token that ends it, special tokens spelt out.
    public init(_ parse: @escaping @Sendable (String) -> ChatMessage) { self.parse = parse }

    public func callAsFunction(_ text: String) -> ChatMessage { parse(text) }

    /// The whole text as content. Templates of reasoning models look for `</think>` in it themselves.
    public static let verbatim = ReplyParser { .assistant($0) }

    /// What stands before `close` as `reasoning_content`, the rest as content. A text without `close` that begins with
    /// `open` was cut while thinking and has no content yet; one without either has no reasoning.
    public static func thinking(open: String = "<think>", close: String = "</think>") -> ReplyParser {
        ReplyParser { text in
            let parts = text.divided(at: close)
            var reasoning = parts.before
            let opened = reasoning.trimmingLineBreaks().dropPrefix(open)
            guard parts.after != nil || opened != nil else { return .assistant(text) }
            reasoning = opened ?? reasoning
            return ChatMessage(
                role: "assistant", content: .string((parts.after ?? "").droppingLeadingLineBreaks()),
                extra: ["reasoning_content": .string(reasoning.trimmingLineBreaks())])
        }
    }
}

extension String {
    /// What stands before and after the first occurrence of `mark`, by bytes; nothing after when there is none.
    func divided(at mark: String) -> (before: String, after: String?) {
        guard let place = utf8.firstPlace(of: mark.utf8) else { return (self, nil) }
        let end = utf8.index(place, offsetBy: mark.utf8.count)
        return (String(self[..<place]), String(self[end...]))
    }

    fileprivate func dropPrefix(_ prefix: String) -> String? {
        guard utf8.starts(with: prefix.utf8) else { return nil }
        return String(self[utf8.index(startIndex, offsetBy: prefix.utf8.count)...])
    }

    fileprivate func droppingLeadingLineBreaks() -> String {
        String(unicodeScalars.drop { $0 == "\n" || $0 == "\r" })
    }

    fileprivate func trimmingLineBreaks() -> String {
        var scalars = unicodeScalars.drop { $0 == "\n" || $0 == "\r" }
        while let last = scalars.last, last == "\n" || last == "\r" { scalars.removeLast() }
        return String(scalars)
    }
}

extension BidirectionalCollection where Element: Equatable {
    /// Where `part` first occurs.
    func firstPlace(of part: some Collection<Element>) -> Index? {
        guard let first = part.first else { return startIndex }
        var place = startIndex
        while place < endIndex {
            if self[place] == first, self[place...].starts(with: part) { return place }
            formIndex(after: &place)
        }
        return nil
    }
}
