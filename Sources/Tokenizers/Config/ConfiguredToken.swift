/// A token that `added_tokens_decoder` or `added_tokens.json` puts into the vocabulary.
public struct ConfiguredToken: Hashable, Sendable {
    public var id: Int
    public var content: String
    public var isSingleWord = false
    public var stripsLeft = false
    public var stripsRight = false
    public var isNormalized = true
    public var isSpecial = false
}

extension TokenizerConfig {
    /// `added_tokens_decoder`: tokens by id.
    mutating func readAddedTokens(_ root: JSONNode) throws {
        guard let table = root.present("added_tokens_decoder") else { return }
        let name = "added_tokens_decoder"
        guard table.isObject else { throw TokenizerError(.invalidField, "\(name): expected an object of tokens by id") }
        try table.forEachMember { key, value in
            let key = JSONNode(document: table.document, index: key).string ?? ""
            guard let id = Int(key), (0...Vocabulary.maximumID).contains(id) else {
                throw TokenizerError(.invalidField, "\(name): '\(key)' is no id from 0 to \(Vocabulary.maximumID)")
            }
            let fields = try FieldReader(JSONNode(document: table.document, index: value), at: "\(name).\(key)")
            var token = ConfiguredToken(id: id, content: try fields.string("content"))
            token.isSpecial = try fields.bool("special", default: false)
            token.isSingleWord = try fields.bool("single_word", default: false)
            token.stripsLeft = try fields.bool("lstrip", default: false)
            token.stripsRight = try fields.bool("rstrip", default: false)
            token.isNormalized = try fields.bool("normalized", default: !token.isSpecial)
            addedTokens.append(token)
        }
        addedTokens.sort { $0.id < $1.id }
    }

    /// `added_tokens.json`: ids by token; those that have a role are special.
    mutating func readLegacyAddedTokens(_ root: JSONNode) throws {
        let special = Set((specialTokensByName.values + extraSpecialTokens).map { Array($0.utf8) })
        try root.forEachMember { key, value in
            let content = JSONNode(document: root.document, index: key).string ?? ""
            guard let id = JSONNode(document: root.document, index: value).int, (0...Vocabulary.maximumID).contains(id)
            else { throw TokenizerError(.invalidField, "'\(content)': expected an id up to \(Vocabulary.maximumID)") }
            var token = ConfiguredToken(id: id, content: content)
            token.isSpecial = special.contains(Array(content.utf8))
            token.isNormalized = !token.isSpecial
            addedTokens.append(token)
        }
        addedTokens.sort { $0.id < $1.id }
    }

    /// Puts what the small files say on top of what the tokenizer's own file has.
    ///
    /// As in `transformers`: a token that is there already stays as it is, tokens come in the order of their ids, and every
    /// token that has a role is special.
    func add(to parts: inout TokenizerParts) {
        var indexOf: [[UInt8]: Int] = [:]
        for (index, token) in parts.addedTokens.enumerated() { indexOf[token.content] = index }
        func add(_ token: AddedToken) {
            guard !token.content.isEmpty else { return }
            if let index = indexOf[token.content] {
                if token.isSpecial { parts.addedTokens[index].isSpecial = true }
            } else {
                indexOf[token.content] = parts.addedTokens.count
                parts.addedTokens.append(token)
            }
        }
        for configured in addedTokens {
            var token = AddedToken(content: Array(configured.content.utf8), id: Int32(configured.id))
            token.isSingleWord = configured.isSingleWord
            token.stripsLeft = configured.stripsLeft
            token.stripsRight = configured.stripsRight
            token.isNormalized = configured.isNormalized
            token.isSpecial = configured.isSpecial
            if indexOf[token.content] == nil { add(token) }
        }
        let named = [bosToken, eosToken, unknownToken] + [otherTokens["sep_token"], padToken]
        let others = [otherTokens["cls_token"], otherTokens["mask_token"]]
        let known: Set<String> = ["sep_token", "cls_token", "mask_token"]
        let own = otherTokens.filter { !known.contains($0.key) }.sorted { $0.key < $1.key }.map(\.value)
        for text in (named + others).compactMap(\.self) + own + extraSpecialTokens {
            var token = AddedToken(content: Array(text.utf8), id: -1)
            token.isSpecial = true
            add(token)
        }
        parts.cleansUpSpaces = cleansUpSpaces
    }
}
