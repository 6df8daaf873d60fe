/// One turn of a conversation.
public struct PromptMessage: Hashable, Sendable {
    /// `system`, `user`, `assistant` or `tool`.
    public var role: String
    public var content: String

    public init(role: String, content: String) {
        self.role = role
        self.content = content
    }
}

/// What the model is asked: turns for the chat template, or text that goes to the tokenizer as it is.
public enum Prompt: Hashable, Sendable {
    case messages([PromptMessage])
    case text(String)
}

/// One row of a dataset, with verl's columns.
public struct PromptRow: Hashable, Sendable {
    /// Which data the row belongs to; metrics are grouped by it and rewards may choose by it.
    public var dataSource: String
    public var prompt: Prompt
    public var ability: String?
    /// `reward_model.style`, verl's `rule` or `model`.
    public var rewardStyle: String?
    /// `reward_model.ground_truth` in the type that the file has; null where rows may have none and this one has none.
    public var groundTruth: JSONValue
    /// `extra_info`, an object.
    public var extraInfo: JSONObject?
    /// Columns that nothing here knows, in the file's order.
    public var otherColumns: JSONObject
    public var origin: RowOrigin

    public init(
        dataSource: String, prompt: Prompt, ability: String? = nil, rewardStyle: String? = nil,
        groundTruth: JSONValue, extraInfo: JSONObject? = nil, otherColumns: JSONObject = JSONObject(),
        origin: RowOrigin
    ) {
        self.dataSource = dataSource
        self.prompt = prompt
        self.ability = ability
        self.rewardStyle = rewardStyle
        self.groundTruth = groundTruth
        self.extraInfo = extraInfo
        self.otherColumns = otherColumns
        self.origin = origin
    }

    /// The ground truth as text: a string's content, any other value's JSON, empty for null.
    public var groundTruthText: String {
        switch groundTruth {
        case .string(let text): text
        case .null: ""
        default: groundTruth.text
        }
    }
}
