public import Foundation

extension Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// - Throws: `TokenizerError`, with the file and the field.
    public convenience init(contentsOf tokenizerJSON: URL) throws {
        try self.init(TokenizerFile.read(tokenizerJSON) { try TokenizerParts(JSONDocument($0).root) })
    }

    /// Reads the text of a `tokenizer.json`.
    public convenience init(jsonData: Data) throws {
        try self.init(TokenizerParts(JSONDocument(Array(jsonData)).root))
    }
}

extension TokenizerParts {
    init(_ root: JSONNode) throws {
        _ = try FieldReader(root, at: "the file")
        try root.document.checkPatterns()
        self.init(model: try Model(root["model"], at: "model"))
        normalizer = try root.present("normalizer").map { try Normalizer($0, at: "normalizer") }
        preTokenizer = try root.present("pre_tokenizer").map { try PreTokenizer($0, at: "pre_tokenizer") }
        postProcessor = try root.present("post_processor").map { try PostProcessor($0, at: "post_processor") }
        decoder = try root.present("decoder").map { try Decoder($0, at: "decoder") }
        if let decoder, decoder.growth > Decoder.largestGrowth {
            throw TokenizerError(
                .invalidField,
                "decoder: its replacements may make a text over \(Int(Decoder.largestGrowth)) times as long as its tokens"
            )
        }
        truncation = try root.present("truncation").map { try Truncation($0, at: "truncation") }
        padding = try root.present("padding").map { try Padding($0, at: "padding") }
        guard let added = root.present("added_tokens") else { return }
        guard added.isArray else { throw TokenizerError(.invalidField, "added_tokens: expected an array") }
        for (index, node) in added.elements.enumerated() {
            addedTokens.append(try AddedToken(node, at: "added_tokens[\(index)]"))
        }
    }
}

extension AddedToken {
    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        guard let id = Int32(exactly: try fields.count("id")) else { throw fields.failure("id", "an id") }
        self.init(content: Array(try fields.string("content").utf8), id: id)
        isSingleWord = try fields.bool("single_word", default: false)
        stripsLeft = try fields.bool("lstrip", default: false)
        stripsRight = try fields.bool("rstrip", default: false)
        isSpecial = try fields.bool("special", default: false)
        isNormalized = try fields.bool("normalized", default: !isSpecial)
    }
}
