import ChatTemplates

/// A call's JSON: an object of a name and an object of arguments, and of nothing else.
enum CallJSON {
    static func call(
        _ text: String, argumentKeys: [String] = ["arguments"], limits: ToolCallLimits
    ) -> ReplyPart {
        do {
            return .call(try parse(text, argumentKeys, limits))
        } catch {
            return .malformed(error)
        }
    }

    static func arguments(_ text: String, limits: ToolCallLimits) throws(MalformedToolCall) -> TemplateObject {
        try object(text, limits, what: "the arguments are no JSON")
    }

    private static func object(
        _ text: String, _ limits: ToolCallLimits, what: String
    ) throws(MalformedToolCall) -> TemplateObject {
        guard text.utf8.count <= limits.callBytes else {
            throw MalformedToolCall("the call is longer than \(limits.callBytes) bytes", in: text)
        }
        let value: TemplateValue
        do { value = try TemplateValue(json: text, depth: limits.depth) } catch {
            throw MalformedToolCall("\(what): \(error.message)", in: text)
        }
        guard case .object(let object) = value else { throw MalformedToolCall("\(what) object", in: text) }
        return object
    }

    private static func parse(
        _ text: String, _ argumentKeys: [String], _ limits: ToolCallLimits
    ) throws(MalformedToolCall) -> ToolCall {
        let object = try object(text, limits, what: "the call is no JSON")
        return try call(object, text, argumentKeys)
    }

    static func call(
        _ object: TemplateObject, _ text: String, _ argumentKeys: [String]
    ) throws(MalformedToolCall) -> ToolCall {
        guard let name = object["name"]?.string, !name.isEmpty else {
            throw MalformedToolCall("the call has no \"name\" in text", in: text)
        }
        let given = argumentKeys.filter { object[$0] != nil }
        guard given.count <= 1 else {
            throw MalformedToolCall("the call has both \"\(given[0])\" and \"\(given[1])\"", in: text)
        }
        let known = ["name", "type"] + argumentKeys
        if let unknown = object.keys.first(where: { !known.contains($0) }) {
            throw MalformedToolCall(
                "the call has \"\(unknown)\" beside \"name\" and \"\(argumentKeys[0])\"", in: text)
        }
        if let type = object["type"], type != "function" {
            throw MalformedToolCall("the call's \"type\" is not \"function\"", in: text)
        }
        guard let key = given.first, case .object(let arguments)? = object[key] else {
            throw MalformedToolCall("the call's \"\(given.first ?? argumentKeys[0])\" is no JSON object", in: text)
        }
        return ToolCall(name: name, arguments: arguments)
    }
}

/// Counts a reply's calls and cuts off what is too many.
struct CallCounter {
    let limits: ToolCallLimits
    private var count = 0

    init(_ limits: ToolCallLimits) { self.limits = limits }

    /// The call; a complaint in place of the first that is too many, and nothing for those after it.
    mutating func admit(_ part: ReplyPart, _ text: String) -> [ReplyPart] {
        count += 1
        if count <= limits.calls { return [part] }
        if count > limits.calls + 1 { return [] }
        return [.malformed(MalformedToolCall("a reply may hold at most \(limits.calls) calls", in: text))]
    }
}
