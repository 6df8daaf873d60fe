public import OrderedCollections

/// A model's `config.json`: typed access to what is known, and everything else kept in order for export.
public struct ModelConfig: Sendable, Hashable {
    /// The whole object, as read.
    public var object: JSONObject
    /// Where it was read, for messages.
    public let path: String

    public init(_ object: JSONObject, path: String = "config.json") {
        self.object = object
        self.path = path
    }

    /// - Throws: `CheckpointError`: `notFound`, `malformed`.
    public init(path: String) throws {
        let file = try MappedFile(path: path)
        try file.refuseGitLFSPointer()
        guard case .object(let object) = try JSONParser.parse(file.bytes, from: path) else {
            throw CheckpointError(.malformed, path, "holds no JSON object")
        }
        self.init(object, path: path)
    }

    /// The file's text, as `transformers` lays it out.
    public var text: String { JSONValue.object(object).text() + "\n" }

    /// The first entry of `architectures`, such as "LlamaForCausalLM".
    public var architecture: String? { value("architectures")?.arrayValue?.first?.stringValue }
    /// Such as "llama".
    public var modelType: String? { value("model_type")?.stringValue }

    // MARK: Access

    /// The value; nil when it is absent or null.
    public func value(_ key: String) -> JSONValue? {
        guard let value = object[key], !value.isNull else { return nil }
        return value
    }

    /// The same but for one key.
    public func without(_ key: String) -> ModelConfig {
        var other = self
        other.object[key] = nil
        return other
    }

    public func has(_ key: String) -> Bool { value(key) != nil }

    /// - Throws: `CheckpointError.configuration` when absent, or not an integer.
    public func int(_ key: String) throws -> Int { try required(key, "an integer", \.intValue) }
    public func int(_ key: String, default other: Int) throws -> Int { try optionalInt(key) ?? other }
    public func optionalInt(_ key: String) throws -> Int? { try optional(key, "an integer", \.intValue) }

    public func double(_ key: String) throws -> Double { try required(key, "a number", \.doubleValue) }
    public func double(_ key: String, default other: Double) throws -> Double { try optionalDouble(key) ?? other }
    public func optionalDouble(_ key: String) throws -> Double? { try optional(key, "a number", \.doubleValue) }

    public func bool(_ key: String) throws -> Bool { try required(key, "a boolean", \.boolValue) }
    public func bool(_ key: String, default other: Bool) throws -> Bool {
        try optional(key, "a boolean", \.boolValue) ?? other
    }

    public func string(_ key: String) throws -> String { try required(key, "a string", \.stringValue) }
    public func optionalString(_ key: String) throws -> String? { try optional(key, "a string", \.stringValue) }

    /// A list of strings, such as `layer_types`; nil when absent.
    public func strings(_ key: String) throws -> [String]? {
        try optional(key, "a list of strings") { value in
            guard let values = value.arrayValue else { return nil }
            let strings = values.compactMap(\.stringValue)
            return strings.count == values.count ? strings : nil
        }
    }

    /// One integer or a list of them (`eos_token_id`); empty when absent.
    public func ints(_ key: String) throws -> [Int] {
        try optional(key, "an integer or a list of them") { value in
            guard let values = value.arrayValue else { return value.intValue.map { [$0] } }
            let ints = values.compactMap(\.intValue)
            return ints.count == values.count ? ints : nil
        } ?? []
    }

    /// An object inside this one; nil when absent. Its errors name the way to it.
    public func nested(_ key: String) throws -> ModelConfig? {
        try optional(key, "an object", \.objectValue).map { ModelConfig($0, path: path + ": " + key) }
    }

    private func required<Value>(_ key: String, _ kind: String, _ read: (JSONValue) -> Value?) throws -> Value {
        guard let value = try optional(key, kind, read) else {
            throw CheckpointError(.configuration, path, "'\(key)' is missing; it should be \(kind)")
        }
        return value
    }

    private func optional<Value>(_ key: String, _ kind: String, _ read: (JSONValue) -> Value?) throws -> Value? {
        guard let value = value(key) else { return nil }
        guard let read = read(value) else {
            throw CheckpointError(
                .configuration, path, "'\(key)' is \(value.text(indented: false)), but it should be \(kind)")
        }
        return read
    }
}
