public import ChatTemplates

/// A call of a tool as a model wrote it.
public struct ToolCall: Hashable, Sendable {
    public var name: String
    /// An object's pairs, in the order in which they were written.
    public var arguments: TemplateObject

    public init(name: String, arguments: TemplateObject = [:]) {
        self.name = name
        self.arguments = arguments
    }

    /// The call as templates take it in a message's `tool_calls`.
    /// - Parameters:
    ///   - id: for templates that tell results by it.
    ///   - argumentsAsText: for templates that want the arguments as JSON text instead of an object.
    public func value(id: String? = nil, argumentsAsText: Bool = false) -> TemplateValue {
        var call: TemplateObject = ["type": "function"]
        if let id { call["id"] = .string(id) }
        let arguments = TemplateValue.object(arguments)
        call["function"] = [
            "name": .string(name), "arguments": argumentsAsText ? .string(arguments.jsonText) : arguments,
        ]
        return .object(call)
    }
}

/// What was meant as a tool call and is none: the model is told so.
public struct MalformedToolCall: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong, in words for the model.
    public var problem: String
    /// The beginning of what it wrote.
    public var excerpt: String

    public init(_ problem: String, in text: String) {
        self.problem = problem
        excerpt = String(text.unicodeScalars.prefix(80))
    }

    public var description: String { "\(problem), in \(ChatFormat.quoted(excerpt))" }
}

/// One part of a reply, in the order in which it was written.
public enum ReplyPart: Hashable, Sendable {
    case text(String)
    case call(ToolCall)
    case malformed(MalformedToolCall)
}

/// How much of a reply is read as tool calls: what a model writes is hostile input.
public struct ToolCallLimits: Hashable, Sendable {
    /// UTF-8 bytes of one call.
    public var callBytes: Int
    /// Calls of one reply, malformed ones among them.
    public var calls: Int
    /// How deep arguments may nest.
    public var depth: Int

    public init(callBytes: Int = 64 << 10, calls: Int = 32, depth: Int = 32) {
        self.callBytes = callBytes
        self.calls = calls
        self.depth = depth
    }
}
