/// Which columns of supervised data hold what; the defaults are TRL's.
public struct SupervisedColumns: Hashable, Sendable {
    /// What rows are read for.
    public enum Kind: Hashable, Sendable {
        /// `messages`, or `prompt` and `completion`.
        case imitation
        /// `chosen` and `rejected`, with or without a `prompt`.
        case pairs
    }

    public var kind: Kind
    public var messages = "messages"
    public var prompt = "prompt"
    public var completion = "completion"
    public var chosen = "chosen"
    public var rejected = "rejected"
    public var margin = "margin"
    public let tools = "tools", templateVariables = "chat_template_kwargs"

    public init(_ kind: Kind) { self.kind = kind }

    /// The columns that rows are made of.
    public var names: [String] {
        let own =
            switch kind {
            case .imitation: [messages, prompt, completion]
            case .pairs: [prompt, chosen, rejected, margin]
            }
        return own + [tools, templateVariables]
    }

    /// Makes a row of an object.
    /// - Throws: `DatasetError.badColumn` that names the column.
    public func row(_ object: JSONObject, origin: RowOrigin) throws -> SupervisedRow {
        let reader = SupervisedReader(columns: self, object: object, origin: origin)
        let content =
            switch kind {
            case .imitation: try reader.imitation()
            case .pairs: try reader.pair()
            }
        return SupervisedRow(
            content: content, tools: try reader.tools(), templateVariables: try reader.templateVariables(),
            origin: origin)
    }
}

private struct SupervisedReader {
    let columns: SupervisedColumns
    let object: JSONObject
    let origin: RowOrigin

    func imitation() throws -> SupervisedContent {
        let hasMessages = present(columns.messages) != nil, hasCompletion = present(columns.completion) != nil
        if hasMessages, hasCompletion {
            throw bad(
                columns.messages,
                "the row has a '\(columns.completion)' as well; keep one, or name another column "
                    + "(data.messages_key, data.completion_key)")
        }
        if hasMessages {
            guard case .messages(let messages) = try side(columns.messages) else {
                throw bad(columns.messages, "must be a list of messages, is a string")
            }
            guard messages.contains(where: { $0["role"] == .string("assistant") }) else {
                throw bad(columns.messages, "no message is the assistant's, so there is nothing to learn")
            }
            return .conversation(messages)
        }
        guard hasCompletion else {
            throw bad(
                columns.messages,
                "missing, and so is '\(columns.completion)'; the row has: \(object.columnNames). Give messages, or a "
                    + "prompt and a completion")
        }
        let (prompt, completion) = (try side(columns.prompt), try side(columns.completion))
        try check(prompt, columns.prompt, fits: completion, columns.completion)
        try checkAnswer(completion, columns.completion)
        return .completion(prompt: prompt, completion: completion)
    }

    func pair() throws -> SupervisedContent {
        let chosen = try side(columns.chosen), rejected = try side(columns.rejected)
        let prompt = present(columns.prompt) == nil ? nil : try side(columns.prompt)
        try check(chosen, columns.chosen, fits: rejected, columns.rejected)
        if let prompt { try check(prompt, columns.prompt, fits: chosen, columns.chosen) }
        try checkAnswer(chosen, columns.chosen)
        try checkAnswer(rejected, columns.rejected)
        if chosen == rejected { throw bad(columns.rejected, "is the same as '\(columns.chosen)': neither is better") }
        var margin: Double?
        if let value = present(columns.margin) {
            guard case .number(let digits) = value, let number = Double(digits), number.isFinite else {
                throw bad(columns.margin, "must be a number, is \(value.kind)")
            }
            margin = number
        }
        return .pair(prompt: prompt, chosen: chosen, rejected: rejected, margin: margin)
    }

    func tools() throws -> JSONValue? {
        guard let value = present(columns.tools) else { return nil }
        switch value {
        case .array: return value
        // Parquet has no column of mixed schemas: there they are JSON text, as TRL takes it too.
        case .string(let text):
            let parsed = try? Array(text.utf8).withUnsafeBufferPointer { try JSONParser.parse($0) }
            guard case .array? = parsed else { throw bad(columns.tools, "is text that is no JSON list of schemas") }
            return parsed
        default: throw bad(columns.tools, "must be a list of JSON schemas, is \(value.kind)")
        }
    }

    func templateVariables() throws -> JSONObject {
        switch present(columns.templateVariables) {
        case nil: return JSONObject()
        case .object(let variables): return variables
        case .some(let other): throw bad(columns.templateVariables, "must be an object, is \(other.kind)")
        }
    }

    // MARK: - Parts

    /// A column's value; nil when it is missing or null.
    private func present(_ column: String) -> JSONValue? {
        guard let value = object[column], value != .null else { return nil }
        return value
    }

    private func bad(_ column: String, _ message: String) -> DatasetError {
        DatasetError(.badColumn, message, origin: origin, column: column)
    }

    private func side(_ column: String) throws -> SupervisedText {
        switch present(column) {
        case nil: throw bad(column, "missing; the row has: \(object.columnNames)")
        case .string(let text): return .text(text)
        case .array(let turns):
            if turns.isEmpty { throw bad(column, "is an empty list; it needs at least one message") }
            return .messages(try turns.enumerated().map { try message($0.element, "\(column)[\($0.offset)]") })
        case .some(let other): throw bad(column, "must be a list of messages or a string, is \(other.kind)")
        }
    }

    private func message(_ value: JSONValue, _ column: String) throws -> JSONObject {
        guard case .object(let turn) = value else {
            throw bad(column, "must be an object with role and content, is \(value.kind)")
        }
        guard let role = turn["role"] else {
            throw bad("\(column).role", "missing; the message has: \(turn.columnNames)")
        }
        guard case .string = role else { throw bad("\(column).role", "must be a string, is \(role.kind)") }
        switch turn["content"] {
        case .string, .array: break
        case nil, .null:
            let says = turn.members.contains { $0.value != .null && $0.name != "role" && $0.name != "content" }
            if !says { throw bad("\(column).content", "missing; the message has: \(turn.columnNames)") }
        case .some(let other): throw bad("\(column).content", "must be a string or a list of parts, is \(other.kind)")
        }
        return JSONObject(turn.members.filter { $0.value != .null || $0.name == "content" })
    }

    private func check(
        _ first: SupervisedText, _ name: String, fits second: SupervisedText, _ other: String
    ) throws {
        switch (first, second) {
        case (.text, .text), (.messages, .messages): return
        case (.text, .messages): throw bad(name, "is text and '\(other)' a list of messages; make both the same")
        case (.messages, .text): throw bad(name, "is a list of messages and '\(other)' text; make both the same")
        }
    }

    private func checkAnswer(_ side: SupervisedText, _ column: String) throws {
        switch side {
        case .text(let text): if text.isEmpty { throw bad(column, "is empty") }
        case .messages(let messages):
            guard messages.last?["role"] == .string("assistant") else {
                throw bad("\(column)[\(messages.count - 1)].role", "the last message must be the assistant's")
            }
        }
    }
}

extension JSONObject {
    /// The names of the members, for messages.
    var columnNames: String { members.isEmpty ? "nothing" : members.map(\.name).joined(separator: ", ") }
}
