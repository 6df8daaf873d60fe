/// A side of a supervised row: turns for the chat template, or text that goes to the tokenizer as it is.
public enum SupervisedText: Hashable, Sendable {
    /// Messages as the file has them, each with a `role`; keys that are null are left out, but for `content`.
    case messages([JSONObject])
    case text(String)
}

/// What a row of supervised data teaches.
public enum SupervisedContent: Hashable, Sendable {
    /// `messages`: every turn of the assistant.
    case conversation([JSONObject])
    /// `prompt` and `completion`: the completion.
    case completion(prompt: SupervisedText, completion: SupervisedText)
    /// `chosen` and `rejected`, after a `prompt` or what both begin with.
    case pair(prompt: SupervisedText?, chosen: SupervisedText, rejected: SupervisedText, margin: Double?)
}

/// One row of supervised data.
public struct SupervisedRow: Hashable, Sendable {
    public var content: SupervisedContent
    /// `tools`: JSON schemas for the template; nil for none.
    public var tools: JSONValue?
    /// `chat_template_kwargs`: variables for the template.
    public var templateVariables: JSONObject
    public var origin: RowOrigin

    public init(
        content: SupervisedContent, tools: JSONValue? = nil, templateVariables: JSONObject = JSONObject(),
        origin: RowOrigin
    ) {
        self.content = content
        self.tools = tools
        self.templateVariables = templateVariables
        self.origin = origin
    }
}
