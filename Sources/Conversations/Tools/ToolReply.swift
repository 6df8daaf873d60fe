public import ChatTemplates

/// A reply with its tool calls read.
public struct ToolReply: Hashable, Sendable {
    /// As the template is to render it: text as content, calls in `tool_calls`.
    public var message: ChatMessage
    /// The reply's text without the calls, and without reasoning where that is told apart.
    public var content: String
    public var calls: [Result]
    public typealias Result = Swift.Result<ToolCall, MalformedToolCall>

    public init(message: ChatMessage, content: String, calls: [Result] = []) {
        self.message = message
        self.content = content
        self.calls = calls
    }
}

/// Reads replies: reasoning apart first, then the calls in what is left.
public struct ToolReplyParser: Sendable {
    public let syntax: any ToolCallSyntax
    public let reasoning: ReplyParser
    public let limits: ToolCallLimits

    /// - Parameter reasoning: `.thinking()` for models that think, so that calls they only think of do not count.
    public init(
        _ syntax: any ToolCallSyntax, reasoning: ReplyParser = .verbatim, limits: ToolCallLimits = ToolCallLimits()
    ) {
        self.syntax = syntax
        self.reasoning = reasoning
        self.limits = limits
    }

    /// - Parameter text: a reply without the token that ends it, special tokens spelt out.
    ///
    /// A reply with a malformed call keeps its text as content, so that the model is shown what it wrote; calls of it
    /// that are well-formed stand in `tool_calls` only if all are.
    public func callAsFunction(_ text: String) -> ToolReply {
        var message = reasoning(text)
        guard let whole = message.content.string else { return ToolReply(message: message, content: "") }
        var content = "", calls: [ToolReply.Result] = []
        for part in syntax.parts(of: whole, limits: limits) {
            switch part {
            case .text(let text): content += text
            case .call(let call): calls.append(.success(call))
            case .malformed(let problem): calls.append(.failure(problem))
            }
        }
        let wellFormed = calls.compactMap { try? $0.get() }
        guard !calls.isEmpty, wellFormed.count == calls.count else {
            return ToolReply(message: message, content: calls.isEmpty ? whole : content.trimmingSpace, calls: calls)
        }
        content = content.trimmingSpace
        message.content = .string(content)
        message.extra["tool_calls"] = .array(
            wellFormed.enumerated().map { index, call in
                call.value(id: Self.id(index), argumentsAsText: syntax.argumentsAsText)
            })
        return ToolReply(message: message, content: content, calls: calls)
    }

    /// For ``ChatFormat/parser``.
    public var replyParser: ReplyParser { ReplyParser { self($0).message } }

    /// What a result names its call by: nine letters and digits, which is what Mistral's templates insist on.
    public static func id(_ call: Int) -> String {
        let digits = String(call)
        return "call" + String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
}
