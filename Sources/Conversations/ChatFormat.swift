public import ChatTemplates
public import Tokenizers

/// How one model's conversations are written: its template with the variables that stay the same, and its tokenizer.
public struct ChatFormat: Sendable {
    public let template: ChatTemplate
    /// Without truncation and padding, whatever the model's file asks for: they would cut what is masked.
    public let tokenizer: Tokenizer
    /// Ids that end the assistant's turn.
    public let endOfTurnIDs: Set<Int32>
    /// What the template reads beside the messages: `bos_token`, `enable_thinking` …
    public var variables: [String: TemplateValue]
    /// A list of JSON schemas, or null.
    public var tools: TemplateValue
    public var parser: ReplyParser
    /// Ids with which the template ends replies when others follow, where the model does not end its turn with them.
    public var closingIDs: Set<Int32> = []
    /// For `strftime_now`: a conversation that goes on past midnight must not change its beginning.
    public var time: TemplateTime

    /// - Throws: `TokenizerError`.
    public init(
        template: ChatTemplate, tokenizer: Tokenizer, endOfTurnIDs: Set<Int32>,
        variables: [String: TemplateValue] = [:], tools: TemplateValue = .null, parser: ReplyParser = .verbatim,
        time: TemplateTime = .now()
    ) throws {
        self.template = template
        self.tokenizer = try tokenizer.withoutTruncationAndPadding()
        self.endOfTurnIDs = endOfTurnIDs
        self.variables = variables
        self.tools = tools
        self.parser = parser
        self.time = time
    }

    /// The text of messages, reasoning under every name that templates know.
    /// - Throws: `TemplateError`.
    public func render(
        _ messages: some Sequence<ChatMessage>, addGenerationPrompt: Bool
    ) throws(TemplateError) -> RenderedChat {
        let time = time
        return try template.render(
            messages: messages.map(\.value.withReasoningAliases), tools: tools,
            addGenerationPrompt: addGenerationPrompt, variables: variables, clock: { time })
    }

    /// The ids of rendered text: special tokens stand in it already.
    public func encode(_ text: String) throws -> [Int32] { try tokenizer.encode(text) }

    /// The text of ids with special tokens spelt out.
    public func spell(_ ids: some Sequence<Int32>) -> String { tokenizer.decode(ids, skipSpecialTokens: false) }
}

extension RenderedChat {
    var bytes: [UInt8] { Array(text.utf8) }
}
