public import Foundation

/// What the small files beside a `tokenizer.json` say: special tokens by role, chat templates, where a turn ends.
public struct TokenizerConfig: Sendable {
    public var bosToken: String?
    public var eosToken: String?
    public var padToken: String?
    public var unknownToken: String?
    /// The template used when none is named: `chat_template.jinja` if there is one, else `chat_template`.
    public var chatTemplate: String?
    /// Templates by name, such as `tool_use`, the default one among them.
    public var namedChatTemplates: [String: String] = [:]
    /// How many tokens the model takes; nil if the file does not say (or says the 1e30 that stands for nothing).
    public var maximumLength: Int?
    public var addsBOS: Bool?
    public var addsEOS: Bool?
    /// Every id that ends a turn, by `generation_config.json`, in its order.
    public var eosTokenIDs: [Int32] = []

    public init() {}

    /// Reads `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`, `chat_template.jinja` and
    /// `additional_chat_templates/*.jinja` of a folder, each only if it is there.
    ///
    /// - Throws: `TokenizerError` with the file and the field.
    public init(folder: URL) throws {
        try Self.read(folder, "special_tokens_map.json") { try readTokens($0) }
        try Self.read(folder, "tokenizer_config.json") { root in
            try readTokens(root)
            try readTemplates(root)
            if let length = root.present("model_max_length") {
                guard let value = length.double, value > 0 else {
                    throw TokenizerError(.invalidField, "model_max_length: expected a number above 0")
                }
                maximumLength = value < 1e15 ? Int(value) : nil
            }
            addsBOS = root.present("add_bos_token")?.bool
            addsEOS = root.present("add_eos_token")?.bool
        }
        try Self.read(folder, "generation_config.json") { try readGeneration($0) }
        if let text = try Self.text(folder.appending(path: "chat_template.jinja")) {
            chatTemplate = text
            namedChatTemplates["default"] = text
        }
        let more = folder.appending(path: "additional_chat_templates", directoryHint: .isDirectory)
        let files = (try? FileManager.default.contentsOfDirectory(at: more, includingPropertiesForKeys: nil)) ?? []
        for file in files where file.pathExtension == "jinja" {
            namedChatTemplates[file.deletingPathExtension().lastPathComponent] = try Self.text(file)
        }
    }

    /// Every id that ends a turn: those of `generation_config.json`, and the end-of-sequence token.
    public func endOfTurnIDs(in tokenizer: Tokenizer) -> [Int32] {
        var ids = eosTokenIDs
        if let eosToken, let id = tokenizer.id(for: eosToken), !ids.contains(id) { ids.append(id) }
        return ids
    }

    private static func text(_ file: URL) throws -> String? {
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        guard let data = try? Data(contentsOf: file), let text = String(data: data, encoding: .utf8) else {
            throw TokenizerError(.unreadable, "\(file.path): cannot be read as UTF-8 text")
        }
        return text
    }

    private static func read(_ folder: URL, _ name: String, _ body: (JSONNode) throws -> Void) throws {
        let file = folder.appending(path: name)
        guard FileManager.default.fileExists(atPath: file.path) else { return }
        guard let data = try? Data(contentsOf: file) else {
            throw TokenizerError(.unreadable, "\(file.path): cannot be read")
        }
        do {
            let root = try JSONDocument(Array(data)).root
            guard root.isObject else { throw TokenizerError(.invalidField, "expected an object") }
            try body(root)
        } catch let error as TokenizerError {
            throw TokenizerError(error.code, "\(file.path): \(error.message)")
        }
    }

    /// A token stands as text or as an object with `content`; null takes back what another file said.
    private mutating func readTokens(_ root: JSONNode) throws {
        func token(_ name: StaticString, _ current: String?) throws -> String? {
            guard let node = root[name] else { return current }
            if node.isNull { return nil }
            guard let text = node.string ?? node["content"]?.string else {
                throw TokenizerError(.invalidField, "\(name): expected text, an object with content, or null")
            }
            return text
        }
        bosToken = try token("bos_token", bosToken)
        eosToken = try token("eos_token", eosToken)
        padToken = try token("pad_token", padToken)
        unknownToken = try token("unk_token", unknownToken)
    }

    private mutating func readTemplates(_ root: JSONNode) throws {
        guard let node = root.present("chat_template") else { return }
        if let text = node.string {
            chatTemplate = text
            namedChatTemplates["default"] = text
            return
        }
        guard node.isArray else {
            throw TokenizerError(.invalidField, "chat_template: expected text or a list of named templates")
        }
        for (index, element) in node.elements.enumerated() {
            guard let name = element["name"]?.string, let text = element["template"]?.string else {
                throw TokenizerError(.invalidField, "chat_template[\(index)]: expected a name and a template")
            }
            namedChatTemplates[name] = text
        }
        chatTemplate = namedChatTemplates["default"]
    }

    private mutating func readGeneration(_ root: JSONNode) throws {
        guard let node = root.present("eos_token_id") else { return }
        let values = node.isArray ? node.elements : [node]
        eosTokenIDs = try values.map { value in
            guard let id = value.int, id >= 0, let narrow = Int32(exactly: id) else {
                throw TokenizerError(.invalidField, "eos_token_id: expected an id or a list of ids")
            }
            return narrow
        }
    }
}

/// A tokenizer and what the files beside it say.
public struct TokenizerFolder: Sendable {
    public let tokenizer: Tokenizer
    public let config: TokenizerConfig

    /// Reads a model's folder as it comes from the Hub.
    ///
    /// - Throws: `TokenizerError`.
    public init(_ folder: URL) throws {
        tokenizer = try Tokenizer(contentsOf: folder.appending(path: "tokenizer.json"))
        config = try TokenizerConfig(folder: folder)
    }

    /// Every id that ends a turn.
    public var endOfTurnIDs: [Int32] { config.endOfTurnIDs(in: tokenizer) }
}
