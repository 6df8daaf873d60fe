public import ChatTemplates

/// A tool as models are told of it.
public struct ToolDefinition: Hashable, Sendable {
    public let name: String
    public let description: String
    public let parameters: ToolSchema

    /// - Parameter parameters: the JSON schema of an object.
    /// - Throws: ``ConversationError`` with code `toolSyntax` for a name that is no identifier, or a schema that is not
    ///   of an object or holds what cannot be checked.
    public init(name: String, description: String, parameters: TemplateValue) throws {
        guard !name.isEmpty, name.utf8.count <= 64, name.utf8.allSatisfy(Self.isNameByte) else {
            throw ConversationError(
                .toolSyntax,
                "a tool's name is up to 64 letters, digits, '_', '-' and '.', not \(ChatFormat.quoted(name))")
        }
        self.name = name
        self.description = description
        self.parameters = try ToolSchema(parameters, of: name)
    }

    /// A tool as chat templates take it: `{"type": "function", "function": {"name", "description", "parameters"}}`, or
    /// the inner object alone.
    /// - Throws: ``ConversationError``, as the other form.
    public init(_ value: TemplateValue) throws {
        let function = value["function"] ?? value
        guard let name = function["name"]?.string else {
            throw ConversationError(.toolSyntax, "a tool's schema has no \"name\": \(value.jsonText.prefix(200))")
        }
        try self.init(
            name: name, description: function["description"]?.string ?? "",
            parameters: function["parameters"] ?? ["type": "object", "properties": [:]])
    }

    /// For the template's `tools`.
    public var value: TemplateValue {
        [
            "type": "function",
            "function": [
                "name": .string(name), "description": .string(description), "parameters": parameters.value,
            ],
        ]
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        (0x61...0x7A).contains(byte | 0x20) || (0x30...0x39).contains(byte) || byte == UInt8(ascii: "_")
            || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".")
    }
}

extension [ToolDefinition] {
    /// For ``ChatFormat/tools``: null without any, as templates have it.
    public var templateValue: TemplateValue { isEmpty ? .null : .array(map(\.value)) }
}
