import ChatTemplates
import Datasets

/// One line of the input, read and checked as far as that goes without a tokenizer.
struct BatchLine: Sendable {
    enum Prompt: Sendable {
        case text(String)
        case messages([ChatMessage], tools: TemplateValue, variables: [String: TemplateValue])
        case tokens([Int32])
    }

    /// Text or number, as it was.
    let id: JSONValue?
    let prompt: Prompt
    /// The command's settings with the line's own over them; `seed` is the line's.
    let sampling: BatchSampling
    /// In the line's order.
    let carried: [JSONObject.Member]

    /// Members of the output line, which nothing that is carried along may be called.
    static let outputNames: Set<String> = ["id", "index", "seed", "prompt_tokens", "samples"]

    /// - Parameter index: the line's place among the input's, from 0.
    /// - Throws: ``BatchProblem``.
    init(_ object: JSONObject, index: Int, settings: BatchSettings) throws(BatchProblem) {
        var sampling = settings.sampling
        sampling.seed = BatchSampling.seed(run: settings.sampling.seed, index: index)
        var carried: [JSONObject.Member] = []
        for member in object.members where member.value != .null || Self.role(member.name) == .other {
            let role = Self.role(member.name)
            switch role {
            case .sampling(let key): try sampling.set(key, member.value)
            case .refused(let why): throw BatchProblem(member.name, why, "remove or rename it")
            case .id, .prompt, .other: break
            }
            let isKept =
                switch (settings.keep, role) {
                case (.none, _), (_, .id), (_, .sampling(.seed)): false
                case (.unknown, _): role == .other
                case (.all, _): true
                }
            guard isKept else { continue }
            if Self.outputNames.contains(member.name) {
                throw BatchProblem(
                    member.name, "is the name of a member of the output", "rename it, or give --keep none")
            }
            carried.append(member)
        }
        try sampling.check()
        self.sampling = sampling
        self.carried = carried
        id = try Self.id(object)
        prompt = try Self.prompt(object, settings)
    }

    private enum Role: Equatable {
        case id, prompt, other
        case sampling(BatchSampling.Key)
        case refused(String)
    }

    private static func role(_ name: String) -> Role {
        switch name {
        case "id": .id
        case "prompt", "messages", "prompt_token_ids", "tools", "chat_template_kwargs": .prompt
        default:
            if let key = BatchSampling.Key(rawValue: name) {
                .sampling(key)
            } else if let why = BatchSampling.refused[name] {
                .refused(why)
            } else {
                .other
            }
        }
    }

    private static func id(_ object: JSONObject) throws(BatchProblem) -> JSONValue? {
        switch object["id"] {
        case nil, .null?: return nil
        case .string?, .number?: return object["id"]
        case let other?: throw BatchProblem("id", "is \(other.brief)", "give a text or a number")
        }
    }

    private static func prompt(_ object: JSONObject, _ settings: BatchSettings) throws(BatchProblem) -> Prompt {
        func present(_ name: String) -> JSONValue? { object[name].flatMap { $0 == .null ? nil : $0 } }
        let names = ["prompt", "messages", "prompt_token_ids"].filter { present($0) != nil }
        guard names.count == 1, let value = present(names[0]) else {
            if names.isEmpty, present("body") != nil {
                throw BatchProblem(
                    "body", "holds a request in OpenAI's batch format, which is not read",
                    "write its members on the line itself, and custom_id as id")
            }
            throw BatchProblem(
                nil, names.isEmpty ? "the line has no prompt" : "the line has \(names.joined(separator: " and "))",
                "give one of prompt, messages and prompt_token_ids")
        }
        switch (names[0], value) {
        case ("prompt_token_ids", _):
            let ids = try value.tokenIDs("prompt_token_ids")
            if ids.isEmpty { throw BatchProblem("prompt_token_ids", "is empty", "give at least one token") }
            return .tokens(ids)
        case ("prompt", .string(let text)):
            if text.isEmpty { throw BatchProblem("prompt", "is empty", "give some text, or leave the line out") }
            return settings.isChat ? try chat([.user(text)], object, settings) : .text(text)
        case (let name, .array(let turns)):
            var messages: [ChatMessage] = []
            for (place, turn) in turns.enumerated() {
                guard let message = (try? TemplateValue(json: turn.text)).flatMap({ ChatMessage($0) }) else {
                    throw BatchProblem(
                        "\(name)[\(place)]", "is \(turn.brief)", "give an object with role and content")
                }
                messages.append(message)
            }
            if messages.isEmpty { throw BatchProblem(name, "is an empty list", "give at least one message") }
            return try chat(messages, object, settings)
        case (let name, _):
            throw BatchProblem(
                name, "is \(value.brief)", name == "prompt" ? "give text or a list of messages" : "give a list")
        }
    }

    private static func chat(
        _ messages: [ChatMessage], _ object: JSONObject, _ settings: BatchSettings
    ) throws(BatchProblem) -> Prompt {
        var messages = messages
        if let system = settings.system, messages.first?.role != "system" { messages.insert(.system(system), at: 0) }
        func template(_ name: String) throws(BatchProblem) -> TemplateValue {
            guard let value = object[name] else { return .null }
            do { return try TemplateValue(json: value.text) } catch {
                throw BatchProblem(name, "cannot be read: \(error)", "mend it")
            }
        }
        var variables: [String: TemplateValue] = [:]
        switch try template("chat_template_kwargs") {
        case .null: break
        case .object(let given): for (key, value) in given.pairs { variables[key] = value }
        default:
            throw BatchProblem("chat_template_kwargs", "is no object", "give an object of the template's variables")
        }
        return .messages(messages, tools: try template("tools"), variables: variables)
    }
}
