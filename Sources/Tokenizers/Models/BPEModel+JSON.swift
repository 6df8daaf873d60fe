extension BPEModel {
    /// Reads the `model` of a `tokenizer.json`.
    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        let vocabulary = try Vocabulary(object: node["vocab"], at: "\(place).vocab")
        let prefix = Array((try fields.affix("continuing_subword_prefix") ?? "").utf8)
        let merges = try Self.merges(
            node["merges"], vocabulary: vocabulary, prefixLength: prefix.count, at: "\(place).merges")
        self.init(vocabulary: vocabulary, merges: merges)
        subwordPrefix = prefix
        wordSuffix = Array((try fields.affix("end_of_word_suffix") ?? "").utf8)
        fusesUnknown = try fields.bool("fuse_unk", default: false)
        hasByteFallback = try fields.bool("byte_fallback", default: false)
        ignoresMerges = try fields.bool("ignore_merges", default: false)
        if let dropout = node.present("dropout")?.double, dropout != 0 {
            throw TokenizerError(
                .unsupported, "\(place).dropout is \(dropout): encoding by chance is not supported; set it to null")
        }
        if let unknown = try fields.optionalString("unk_token") {
            unknownID = vocabulary.id(unknown.utf8)
            if unknownID == nil { missingUnknown = unknown }
        }
        prepare()
    }

    private static func merges(
        _ node: JSONNode?, vocabulary: Vocabulary, prefixLength: Int, at place: String
    ) throws -> PairTable {
        guard let node, node.isArray else { throw TokenizerError(.invalidField, "\(place): expected an array") }
        let document = node.document
        var builder = MergeBuilder(
            vocabulary: vocabulary, capacity: node.count, prefixLength: prefixLength, place: place)
        var text: [UInt8] = []
        try node.forEachElement { index in
            text.removeAll(keepingCapacity: true)
            let entry = document.entries[index]
            switch entry.kind {
            case .string, .escapedString:
                try document.appendString(at: index, to: &text)
                guard let space = text.firstIndex(of: 0x20) else {
                    throw TokenizerError(.invalidField, "\(place)[\(builder.count)]: expected two parts and a blank")
                }
                text.remove(at: space)
                try builder.add(text, leftCount: space)
            case .array where entry.count == 2:
                for part in [index + 1, index + 2] {
                    let kind = document.entries[part].kind
                    guard kind == .string || kind == .escapedString else {
                        throw TokenizerError(.invalidField, "\(place)[\(builder.count)]: expected two strings")
                    }
                }
                try document.appendString(at: index + 1, to: &text)
                let leftCount = text.count
                try document.appendString(at: index + 2, to: &text)
                try builder.add(text, leftCount: leftCount)
            default:
                throw TokenizerError(.invalidField, "\(place)[\(builder.count)]: expected \"a b\" or [\"a\", \"b\"]")
            }
        }
        return builder.table
    }
}

/// Collects merges by their spellings; a later merge of the same pair replaces an earlier one.
struct MergeBuilder {
    let vocabulary: Vocabulary
    private(set) var table: PairTable
    private(set) var count = 0
    private let prefixLength: Int
    private let place: String

    init(vocabulary: Vocabulary, capacity: Int, prefixLength: Int, place: String) {
        self.vocabulary = vocabulary
        self.prefixLength = prefixLength
        self.place = place
        table = PairTable(capacity: capacity)
    }

    /// - Parameter text: the two parts, joined.
    mutating func add(_ text: [UInt8], leftCount: Int) throws {
        let (left, right, joined) = try text.withUnsafeBufferPointer { text in
            let left = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[..<leftCount]))
            let right = vocabulary.table.value(for: UnsafeBufferPointer(rebasing: text[leftCount...]))
            var joined: Int32?
            if prefixLength == 0 {
                joined = vocabulary.table.value(for: text)
            } else {
                guard text.count - leftCount >= prefixLength else { throw failure(text, leftCount) }
                joined = vocabulary.id(Array(text[..<leftCount]) + Array(text[(leftCount + prefixLength)...]))
            }
            guard let left, let right, let joined else { throw failure(text, leftCount) }
            return (left, right, joined)
        }
        table.set(left, right, to: PairTable.Merge(rank: UInt32(count), id: joined))
        count += 1
    }

    private func failure(_ text: UnsafeBufferPointer<UInt8>, _ leftCount: Int) -> TokenizerError {
        let left = String(decoding: text[..<leftCount], as: UTF8.self)
        let right = String(decoding: text[leftCount...], as: UTF8.self)
        return TokenizerError(
            .invalidField, "\(place)[\(count)]: '\(left)', '\(right)' or what they make is not in the vocabulary")
    }
}
