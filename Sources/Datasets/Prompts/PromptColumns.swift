/// Which columns hold what. The defaults are verl's.
public struct PromptColumns: Hashable, Sendable {
    /// verl's `data.prompt_key`.
    public var prompt = "prompt"
    /// verl's `data.reward_fn_key`.
    public var dataSource = "data_source"
    public var ability = "ability"
    public var rewardModel = "reward_model"
    public var extraInfo = "extra_info"
    /// Whether a row without `reward_model.ground_truth` is an error; a reward that needs none can do without.
    public var requiresGroundTruth = true

    public init() {}

    /// The columns that rows are made of; a format that can leave columns unread need read no other.
    var names: [String] { [prompt, dataSource, ability, rewardModel, extraInfo] }

    /// The prompt alone, for a look at rows that may lack the rest; nil where it is missing or null.
    /// - Throws: `DatasetError.badColumn` where it is neither text nor messages.
    func prompt(_ object: JSONObject, origin: RowOrigin) throws -> Prompt? {
        guard let value = object[prompt], value != .null else { return nil }
        if case .array(let turns) = value, turns.isEmpty { return nil }
        return try ColumnReader(columns: self, object: object, origin: origin).prompt()
    }

    /// Makes a row of an object.
    /// - Throws: `DatasetError.badColumn` that names the column.
    public func row(_ object: JSONObject, origin: RowOrigin) throws -> PromptRow {
        try ColumnReader(columns: self, object: object, origin: origin).row()
    }
}

private struct ColumnReader {
    let columns: PromptColumns
    let object: JSONObject
    let origin: RowOrigin

    func row() throws -> PromptRow {
        let known = columns.names
        let (dataSource, prompt) = (try dataSource(), try prompt())
        let reward = try rewardModel()
        return PromptRow(
            dataSource: dataSource,
            prompt: prompt,
            ability: try optionalString(present(columns.ability), columns.ability),
            rewardStyle: reward.style,
            groundTruth: reward.groundTruth,
            extraInfo: try extraInfo(),
            otherColumns: JSONObject(object.members.filter { !known.contains($0.name) }),
            origin: origin)
    }

    /// A column's value; nil when it is missing or null.
    private func present(_ column: String) -> JSONValue? {
        guard let value = object[column], value != .null else { return nil }
        return value
    }

    private func bad(_ column: String, _ message: String) -> DatasetError {
        DatasetError(.badColumn, message, origin: origin, column: column)
    }

    private func missing(_ column: String, in object: JSONObject) -> DatasetError {
        bad(column, "missing; the row has: \(object.columnNames)")
    }

    private func optionalString(_ value: JSONValue?, _ column: String) throws -> String? {
        guard let value else { return nil }
        guard case .string(let text) = value else { throw bad(column, "must be a string, is \(value.kind)") }
        return text
    }

    private func dataSource() throws -> String {
        guard let text = try optionalString(present(columns.dataSource), columns.dataSource) else {
            throw missing(columns.dataSource, in: object)
        }
        return text
    }

    func prompt() throws -> Prompt {
        let column = columns.prompt
        switch present(column) {
        case nil: throw missing(column, in: object)
        case .string(let text): return .text(text)
        case .array(let turns): return try messages(turns)
        case .some(let other): throw bad(column, "must be a list of messages or a string, is \(other.kind)")
        }
    }

    private func messages(_ turns: [JSONValue]) throws -> Prompt {
        if turns.isEmpty { throw bad(columns.prompt, "is an empty list; it needs at least one message") }
        return .messages(try turns.enumerated().map { try message($0.element, "\(columns.prompt)[\($0.offset)]") })
    }

    private func message(_ value: JSONValue, _ column: String) throws -> PromptMessage {
        guard case .object(let turn) = value else {
            throw bad(column, "must be an object with role and content, is \(value.kind)")
        }
        for member in turn.members where member.name != "role" && member.name != "content" {
            throw bad("\(column).\(member.name)", "is not supported; a message has role and content")
        }
        func string(_ name: String) throws -> String {
            guard let value = turn[name] else { throw missing("\(column).\(name)", in: turn) }
            guard case .string(let text) = value else {
                throw bad("\(column).\(name)", "must be a string, is \(value.kind)")
            }
            return text
        }
        return PromptMessage(role: try string("role"), content: try string("content"))
    }

    private func rewardModel() throws -> (style: String?, groundTruth: JSONValue) {
        let column = columns.rewardModel
        guard let value = present(column) else {
            if columns.requiresGroundTruth { throw missing(column, in: object) }
            return (nil, .null)
        }
        guard case .object(let model) = value else {
            throw bad(column, "must be an object with style and ground_truth, is \(value.kind)")
        }
        let groundTruth = model["ground_truth"] ?? .null
        if groundTruth == .null, columns.requiresGroundTruth { throw missing("\(column).ground_truth", in: model) }
        let style = model["style"].flatMap { $0 == .null ? nil : $0 }
        return (try optionalString(style, "\(column).style"), groundTruth)
    }

    private func extraInfo() throws -> JSONObject? {
        switch present(columns.extraInfo) {
        case nil: return nil
        case .object(let info): return info
        case .some(let other): throw bad(columns.extraInfo, "must be an object, is \(other.kind)")
        }
    }
}
