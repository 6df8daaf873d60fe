/// A step that rewrites text before it is split.
indirect enum Normalizer: Sendable {
    case sequence([Normalizer])
    case unicode(composing: Bool, compatibly: Bool)
    case lowercase
    case strip(left: Bool, right: Bool)
    case stripAccents
    case nmt
    case prepend([UInt8])
    case replace(TextPattern, [UInt8])
    case bert(BertNormalizer)
    case byteLevel
    case precompiled(PrecompiledMap)
    case sentencePiece(SentencePieceNormalizer)

    /// - Throws: `TokenizerError`: `patternTooSlow`, or `cannotTruncate` where the text grows out of bounds.
    func normalize(_ text: inout AlignedText) throws {
        try apply(to: &text, limit: AlignedText.largest(madeFrom: text.bytes.count))
    }

    private func apply(to text: inout AlignedText, limit: Int) throws {
        try rewrite(&text, limit: limit)
        try text.checkSize(limit)
    }

    private func rewrite(_ text: inout AlignedText, limit: Int) throws {
        switch self {
        case .sequence(let steps): for step in steps { try step.apply(to: &text, limit: limit) }
        case .unicode(let composing, let compatibly):
            NormalizationTables.shared.normalize(&text, composing: composing, compatibly: compatibly)
        case .lowercase: Self.lowercase(&text)
        case .strip(let left, let right): Self.strip(&text, left: left, right: right)
        case .stripAccents:
            if !text.isASCII { text.filter { !UnicodeProperties.combiningMark.contains($0) } }
        case .nmt:
            text.filter { !UnicodeProperties.nmtRemoved.contains($0) }
            text.map { $0 != 0x20 && UnicodeProperties.nmtSpace.contains($0) ? [0x20] : nil }
        case .prepend(let prefix): text.prepend(prefix)
        case .replace(let pattern, let content): try text.replace(pattern, with: content, limit: limit)
        case .bert(let bert): bert.normalize(&text)
        case .byteLevel: ByteAlphabet.encode(&text)
        case .precompiled(let map): map.normalize(&text)
        case .sentencePiece(let rules): rules.normalize(&text)
        }
    }

    static func lowercase(_ text: inout AlignedText) {
        text.map { value in
            if value < 0x80 { return (0x41...0x5A).contains(value) ? [value + 0x20] : nil }
            guard let scalar = UnicodeScalar(value) else { return nil }
            let mapping = scalar.properties.lowercaseMapping.unicodeScalars
            if mapping.count == 1, mapping.first == scalar { return nil }
            return mapping.map(\.value)
        }
    }

    private static func strip(_ text: inout AlignedText, left: Bool, right: Bool) {
        var start: Int?
        var end = 0
        text.forEachScalar { scalar, position, length in
            if !UnicodeProperties.whitespace.contains(scalar) {
                if start == nil { start = position }
                end = position + length
            }
        }
        guard left || right else { return }
        // A text of blanks alone loses all of them to either side.
        guard let start else {
            text = text.slice(0..<0)
            return
        }
        let kept = (left ? start : 0)..<(right ? end : text.bytes.count)
        if kept.count != text.bytes.count { text = text.slice(kept) }
    }

    /// Whether it may put out scalars that come from where the text's first scalar does, besides the first itself.
    var mayAddAtStart: Bool {
        switch self {
        case .lowercase, .strip, .stripAccents, .nmt: false
        case .sequence(let steps): steps.contains(where: \.mayAddAtStart)
        default: true
        }
    }
}

/// BERT's normalizer: cleaning, blanks around Chinese characters, accents, case.
struct BertNormalizer: Sendable {
    let cleansText: Bool
    let spacesChinese: Bool
    let stripsAccents: Bool
    let lowercases: Bool

    func normalize(_ text: inout AlignedText) {
        if cleansText {
            text.filter { !UnicodeProperties.bertControl.contains($0) }
            text.map { $0 != 0x20 && UnicodeProperties.whitespace.contains($0) ? [0x20] : nil }
        }
        if spacesChinese, !text.isASCII {
            text.map { UnicodeProperties.bertChinese.contains($0) ? [0x20, $0, 0x20] : nil }
        }
        if stripsAccents, !text.isASCII {
            NormalizationTables.shared.normalize(&text, composing: false, compatibly: false)
            text.filter { !UnicodeProperties.bertMark.contains($0) }
        }
        if lowercases { Normalizer.lowercase(&text) }
    }
}

extension Normalizer {
    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        switch try fields.string("type") {
        case "Sequence":
            self = .sequence(
                try fields.array("normalizers").enumerated().map {
                    try Normalizer($0.element, at: "\(place).normalizers[\($0.offset)]")
                })
        case "NFC": self = .unicode(composing: true, compatibly: false)
        case "NFD": self = .unicode(composing: false, compatibly: false)
        case "NFKC": self = .unicode(composing: true, compatibly: true)
        case "NFKD": self = .unicode(composing: false, compatibly: true)
        case "Lowercase": self = .lowercase
        case "Strip": self = .strip(left: try fields.bool("strip_left"), right: try fields.bool("strip_right"))
        case "StripAccents": self = .stripAccents
        case "Nmt": self = .nmt
        case "Prepend": self = .prepend(Array(try fields.string("prepend").utf8))
        case "Replace":
            self = .replace(
                try TextPattern(node["pattern"], at: "\(place).pattern"), Array(try fields.string("content").utf8))
        case "BertNormalizer":
            let lowercases = try fields.bool("lowercase", default: true)
            self = .bert(
                BertNormalizer(
                    cleansText: try fields.bool("clean_text", default: true),
                    spacesChinese: try fields.bool("handle_chinese_chars", default: true),
                    stripsAccents: try fields.bool("strip_accents", default: lowercases), lowercases: lowercases))
        case "ByteLevel": self = .byteLevel
        case "Precompiled":
            guard let text = node["precompiled_charsmap"]?.stringBytes else {
                throw fields.failure("precompiled_charsmap", "base64 text")
            }
            self = .precompiled(try PrecompiledMap(base64: text, at: "\(place).precompiled_charsmap"))
        case let type: throw TokenizerError(.unsupported, "\(place): unknown normalizer \(type)")
        }
    }
}
