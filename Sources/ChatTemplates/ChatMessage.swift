/// One message of a conversation, for the simple case; ``ChatTemplate`` takes ``TemplateValue`` for any other.
public struct ChatMessage: Hashable, Sendable {
    public var role: String
    /// A string, a list of parts, or null.
    public var content: TemplateValue
    /// Further keys, such as `tool_calls` or `reasoning_content`, after `role` and `content`.
    public var extra: TemplateObject

    public init(role: String, content: TemplateValue, extra: TemplateObject = [:]) {
        self.role = role
        self.content = content
        self.extra = extra
    }

    /// A message as JSON has it; nil where it is no object with a `role` in text. Without `content` it has null.
    public init?(_ value: TemplateValue) {
        guard case .object(let object) = value, let role = object["role"]?.string else { return nil }
        self.init(
            role: role, content: object["content"] ?? .null,
            extra: TemplateObject(object.pairs.filter { $0.key != "role" && $0.key != "content" }))
    }

    public static func system(_ text: String) -> ChatMessage { ChatMessage(role: "system", content: .string(text)) }
    public static func user(_ text: String) -> ChatMessage { ChatMessage(role: "user", content: .string(text)) }
    public static func assistant(_ text: String) -> ChatMessage {
        ChatMessage(role: "assistant", content: .string(text))
    }

    /// The message as templates see it.
    public var value: TemplateValue {
        var object: TemplateObject = ["role": .string(role), "content": content]
        for (key, value) in extra.pairs { object[key] = value }
        return .object(object)
    }
}

extension TemplateValue {
    /// A message with its reasoning under every name that templates know, as `transformers` (5.23) gives it to them:
    /// any of `reasoning_content`, `thinking` and `reasoning`, in that order of preference, fills `reasoning_content`
    /// and `thinking`; a new `thinking` becomes the first key. Other values are returned as they are.
    public var withReasoningAliases: TemplateValue {
        guard case .object(let message) = self else { return self }
        let names = ["reasoning_content", "thinking", "reasoning"]
        guard let reasoning = names.lazy.compactMap({ message[$0] }).first(where: { $0 != .null }) else { return self }
        var object = TemplateObject([("thinking", reasoning)])
        for (key, value) in message.pairs { object[key] = value }
        object["reasoning_content"] = reasoning
        return .object(object)
    }
}
