public import Foundation

/// What the small files beside a `tokenizer.json` say: special tokens by role, chat templates, where a turn ends.
public struct TokenizerConfig: Sendable {
    public var bosToken: String?
    public var eosToken: String?
    public var padToken: String?
    public var unknownToken: String?
    /// The other special tokens by their names, `sep_token`, `cls_token` and `mask_token`, and names of the model's own.
    public var otherTokens: [String: String] = [:]
    /// `extra_special_tokens`, or `additional_special_tokens` as older files say.
    public var extraSpecialTokens: [String] = []
    /// `added_tokens_decoder`, else `added_tokens.json`, by id.
    public internal(set) var addedTokens: [ConfiguredToken] = []
    /// `tokenizer_class`, without the `Fast` at its end.
    public var tokenizerClass: String?
    /// `legacy`, `add_prefix_space` and `extra_ids` of tokenizers that come as a `tokenizer.model`.
    public var isLegacy: Bool?
    public var addsPrefixSpace: Bool?
    public var extraIDs: Int?
    /// `clean_up_tokenization_spaces`.
    public var cleansUpSpaces = false
    /// The template used when none is named: `chat_template.jinja` if there is one, else `chat_template`.
    public var chatTemplate: String?
    /// Templates by name, such as `tool_use`, the default one among them.
    public var namedChatTemplates: [String: String] = [:]
    /// How many tokens the model takes; nil if the file does not say (or says the 1e30 that stands for nothing).
    public var maximumLength: Int?
    public var addsBOS: Bool?
    public var addsEOS: Bool?
    /// Every id that ends a turn, by `generation_config.json`, else by `config.json`, in the file's order.
    public var eosTokenIDs: [Int32] = []
    /// What `generation_config.json` says of sampling.
    public var generation = GenerationDefaults()
    /// `model_type` of `config.json`.
    public var modelType: String?

    public init() {}

    /// Reads `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `generation_config.json`,
    /// `config.json`, `chat_template.jinja` and `additional_chat_templates/*.jinja` of a folder, each only if it is there.
    ///
    /// As in `transformers`, `special_tokens_map.json` and `added_tokens.json` count only where `tokenizer_config.json` has
    /// no `added_tokens_decoder`; then the map has the last word.
    ///
    /// - Throws: `TokenizerError` with the file and the field.
    public init(folder: URL) throws {
        var hasDecoder = false
        try Self.read(folder, "tokenizer_config.json") { root in
            try readTokens(root)
            try readTemplates(root)
            try readOptions(root)
            hasDecoder = root.present("added_tokens_decoder") != nil
            if hasDecoder { try readAddedTokens(root) }
        }
        if !hasDecoder {
            try Self.read(folder, "special_tokens_map.json") { try readTokens($0) }
            try Self.read(folder, "added_tokens.json") { try readLegacyAddedTokens($0) }
        }
        try Self.read(folder, "config.json") { root in
            modelType = root["model_type"]?.string
            try readEndIDs(root)
        }
        try Self.read(folder, "generation_config.json") { root in
            try readEndIDs(root)
            generation = try GenerationDefaults(root)
        }
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

    /// The special tokens by the names that chat templates use.
    public var specialTokensByName: [String: String] {
        var tokens = otherTokens
        tokens["bos_token"] = bosToken
        tokens["eos_token"] = eosToken
        tokens["pad_token"] = padToken
        tokens["unk_token"] = unknownToken
        return tokens
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
        try TokenizerFile.read(file) { bytes in
            let root = try JSONDocument(bytes).root
            guard root.isObject else { throw TokenizerError(.invalidField, "expected an object") }
            try body(root)
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
        for name: StaticString in ["sep_token", "cls_token", "mask_token"] {
            otherTokens["\(name)"] = try token(name, otherTokens["\(name)"])
        }
        for name: StaticString in ["additional_special_tokens", "extra_special_tokens"] {
            try readExtraTokens(root, name)
        }
    }

    /// A list of tokens, or an object that gives them names.
    private mutating func readExtraTokens(_ root: JSONNode, _ name: StaticString) throws {
        guard let node = root.present(name) else { return }
        func text(_ node: JSONNode) throws -> String {
            guard let text = node.string ?? node["content"]?.string else {
                throw TokenizerError(.invalidField, "\(name): expected tokens as text or as objects with content")
            }
            return text
        }
        if node.isObject {
            try node.forEachMember { key, value in
                guard let key = JSONNode(document: node.document, index: key).string else { return }
                otherTokens[key] = try text(JSONNode(document: node.document, index: value))
            }
            return
        }
        guard node.isArray else {
            throw TokenizerError(.invalidField, "\(name): expected a list of tokens or an object")
        }
        for element in node.elements {
            let token = try text(element)
            if !extraSpecialTokens.contains(where: { $0.utf8.elementsEqual(token.utf8) }) {
                extraSpecialTokens.append(token)
            }
        }
    }

    private mutating func readOptions(_ root: JSONNode) throws {
        let fields = try FieldReader(root, at: "tokenizer_config")
        if let length = root.present("model_max_length") {
            guard let value = length.double, value > 0 else {
                throw TokenizerError(.invalidField, "model_max_length: expected a number above 0")
            }
            maximumLength = value < 1e15 ? Int(value) : nil
        }
        func flag(_ name: StaticString) throws -> Bool? {
            root.present(name) == nil ? nil : try fields.bool(name)
        }
        addsBOS = try flag("add_bos_token")
        addsEOS = try flag("add_eos_token")
        isLegacy = try flag("legacy")
        addsPrefixSpace = try flag("add_prefix_space")
        cleansUpSpaces = try flag("clean_up_tokenization_spaces") ?? false
        if root.present("extra_ids") != nil { extraIDs = try fields.count("extra_ids") }
        if var name = try fields.optionalString("tokenizer_class") {
            if name.hasSuffix("Fast") { name.removeLast(4) }
            tokenizerClass = name
        }
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

    private mutating func readEndIDs(_ root: JSONNode) throws {
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
