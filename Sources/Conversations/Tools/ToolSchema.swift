public import ChatTemplates

/// The JSON schema of a tool's arguments, and the check of a call against it.
///
/// The keywords that tools use are checked: `type`, `properties`, `required`, `additionalProperties`, `items`, `enum`,
/// `const`, `anyOf`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength` (code
/// points), `minItems`, `maxItems`. `title`, `description`, `default`, `examples` and `format` say nothing that is
/// checked. Any other keyword is refused when the tool is made, rather than passed over when it is called.
public struct ToolSchema: Hashable, Sendable {
    public let value: TemplateValue

    private static let checked: Set<String> = [
        "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "minimum",
        "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
    ]
    private static let notes: Set<String> = ["title", "description", "default", "examples", "format", "$schema"]
    private static let types: Set<String> = ["object", "array", "string", "number", "integer", "boolean", "null"]

    init(_ value: TemplateValue, of tool: String) throws {
        self.value = value
        guard value["type"] == "object" else {
            throw ConversationError(.toolSyntax, "tool '\(tool)': its parameters' \"type\" must be \"object\"")
        }
        try Self.validate(value, "parameters", tool, depth: 0)
    }

    /// What is wrong with a call's arguments, in words for the model; nil when nothing is.
    public func problem(with arguments: TemplateObject) -> String? {
        Self.problem(.object(arguments), self.value, "the arguments")
    }

    // MARK: - The schema itself

    private static func validate(_ schema: TemplateValue, _ path: String, _ tool: String, depth: Int) throws {
        func bad(_ message: String) -> ConversationError {
            ConversationError(.toolSyntax, "tool '\(tool)', \(path): \(message)")
        }
        guard case .object(let object) = schema, depth < 32 else { throw bad("is no schema (an object)") }
        for (key, value) in object.pairs {
            guard checked.contains(key) || notes.contains(key) else {
                throw bad(
                    "the keyword '\(key)' is not supported; known are \(checked.sorted().joined(separator: ", "))")
            }
            switch key {
            case "type":
                guard let names = typeNames(value), !names.isEmpty, names.allSatisfy(types.contains) else {
                    throw bad("\"type\" is no type or list of types: \(value.jsonText)")
                }
            case "properties":
                guard case .object(let properties) = value else { throw bad("\"properties\" is no object") }
                for (name, property) in properties.pairs {
                    try validate(property, "\(path).\(name)", tool, depth: depth + 1)
                }
            case "required":
                guard case .array(let names) = value, names.allSatisfy({ $0.string != nil }) else {
                    throw bad("\"required\" is no list of names")
                }
                if let missing = names.compactMap(\.string).first(where: { object["properties"]?[$0] == nil }) {
                    throw bad("'\(missing)' is required but not among the properties")
                }
            case "items": try validate(value, "\(path)[]", tool, depth: depth + 1)
            case "additionalProperties":
                if case .bool = value { break }
                try validate(value, "\(path).*", tool, depth: depth + 1)
            case "anyOf":
                guard case .array(let choices) = value, !choices.isEmpty else { throw bad("\"anyOf\" is no list") }
                for choice in choices { try validate(choice, path, tool, depth: depth + 1) }
            case "enum":
                guard case .array(let values) = value, !values.isEmpty else { throw bad("\"enum\" is no list") }
            case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
                guard value.number != nil else { throw bad("\"\(key)\" is no number") }
            case "minLength", "maxLength", "minItems", "maxItems":
                guard case .int(let count) = value, count >= 0 else { throw bad("\"\(key)\" is no count") }
            default: break
            }
        }
    }

    private static func typeNames(_ value: TemplateValue) -> [String]? {
        switch value {
        case .string(let name): [name]
        case .array(let names): names.contains { $0.string == nil } ? nil : names.compactMap(\.string)
        default: nil
        }
    }

    // MARK: - A value against it

    private static func problem(_ value: TemplateValue, _ schema: TemplateValue, _ path: String) -> String? {
        if let names = schema["type"].flatMap(typeNames), !names.contains(where: value.isOf) {
            return "\(path) must be of type \(names.joined(separator: " or ")), not \(value.typeName)"
        }
        if case .array(let values)? = schema["enum"], !values.contains(where: value.equals) {
            return "\(path) must be one of \(TemplateValue.array(values).jsonText)"
        }
        if let constant = schema["const"], !value.equals(constant) { return "\(path) must be \(constant.jsonText)" }
        if case .array(let choices)? = schema["anyOf"] {
            let problems = choices.compactMap { problem(value, $0, path) }
            if problems.count == choices.count { return problems.joined(separator: ", or ") }
        }
        switch value {
        case .int, .double: return numberProblem(value.number ?? .nan, schema, path)
        case .string(let text):
            return countProblem(text.unicodeScalars.count, schema, "Length", "characters", path)
        case .array(let elements):
            if let wrong = countProblem(elements.count, schema, "Items", "items", path) { return wrong }
            guard let items = schema["items"] else { return nil }
            for (index, element) in elements.enumerated() {
                if let wrong = problem(element, items, "\(path)[\(index)]") { return wrong }
            }
            return nil
        case .object(let object): return objectProblem(object, schema, path)
        case .null, .bool: return nil
        }
    }

    private static func numberProblem(_ number: Double, _ schema: TemplateValue, _ path: String) -> String? {
        let bounds: [(String, String, (Double, Double) -> Bool)] = [
            ("minimum", "at least", (>=)), ("maximum", "at most", (<=)), ("exclusiveMinimum", "above", (>)),
            ("exclusiveMaximum", "below", (<)),
        ]
        for (key, words, holds) in bounds {
            if let bound = schema[key], let limit = bound.number, !holds(number, limit) {
                return "\(path) must be \(words) \(bound.jsonText)"
            }
        }
        return nil
    }

    private static func countProblem(
        _ count: Int, _ schema: TemplateValue, _ suffix: String, _ unit: String, _ path: String
    ) -> String? {
        if case .int(let least)? = schema["min" + suffix], count < least {
            return "\(path) must have at least \(least) \(unit)"
        }
        if case .int(let most)? = schema["max" + suffix], count > most {
            return "\(path) must have at most \(most) \(unit)"
        }
        return nil
    }

    private static func objectProblem(_ object: TemplateObject, _ schema: TemplateValue, _ path: String) -> String? {
        let properties = schema["properties"]
        if case .array(let required)? = schema["required"] {
            let missing = required.compactMap(\.string).filter { object[$0] == nil }
            if !missing.isEmpty { return "\(path) lack \(missing.map { "\"\($0)\"" }.joined(separator: ", "))" }
        }
        for (name, value) in object.pairs {
            if let property = properties?[name] {
                if let wrong = problem(value, property, "\"\(name)\"") { return wrong }
            } else if let extra = schema["additionalProperties"], extra != .bool(true) {
                if extra != .bool(false) {
                    if let wrong = problem(value, extra, "\"\(name)\"") { return wrong }
                } else {
                    return "\(path) have no \"\(name)\""
                }
            }
        }
        return nil
    }
}

extension TemplateValue {
    fileprivate var number: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// Equal as JSON has it, where 1 and 1.0 are one number.
    fileprivate func equals(_ other: TemplateValue) -> Bool {
        if self == other { return true }
        guard let number, let theirs = other.number else { return false }
        return number == theirs
    }

    fileprivate var typeName: String {
        switch self {
        case .null: "null"
        case .bool: "boolean"
        case .int: "integer"
        case .double: "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }

    fileprivate func isOf(_ type: String) -> Bool {
        switch (type, self) {
        case ("number", .int): true
        // JSON has one kind of number: 3.0 is an integer.
        case ("integer", .double(let value)): value.rounded() == value && value.isFinite
        default: type == typeName
        }
    }
}
