/// What is put around the tokens of one text or two.
indirect enum PostProcessor: Sendable {
    struct TemplatePiece: Sendable {
        /// The ids of a special token, or nil for a text.
        var ids: [Int32]?
        /// Their spellings.
        var tokens: [String] = []
        var isSecondText: Bool
        var typeID: Int32
    }

    struct SpecialToken: Sendable {
        var id: Int32
        var spelling: String

        func encoding(typeID: Int32) -> Encoding { .added(id, spelling, typeID: typeID) }
    }

    case sequence([PostProcessor])
    case byteLevel(trimsOffsets: Bool, addsPrefixSpace: Bool)
    case template(single: [TemplatePiece], pair: [TemplatePiece])
    case bert(start: SpecialToken, separator: SpecialToken)
    case roberta(start: SpecialToken, separator: SpecialToken, trimsOffsets: Bool, addsPrefixSpace: Bool)

    /// How many tokens it adds.
    func addedCount(isPair: Bool) -> Int {
        switch self {
        case .sequence(let steps): steps.reduce(0) { $0 + $1.addedCount(isPair: isPair) }
        case .byteLevel: 0
        case .template(let single, let pair): (isPair ? pair : single).reduce(0) { $0 + ($1.ids?.count ?? 0) }
        case .bert: isPair ? 3 : 2
        case .roberta: isPair ? 4 : 2
        }
    }

    /// The ids that it puts in.
    var specialIDs: [Int32] {
        switch self {
        case .sequence(let steps): steps.flatMap(\.specialIDs)
        case .byteLevel: []
        case .template(let single, let pair): (single + pair).flatMap { $0.ids ?? [] }
        case .bert(let start, let separator), .roberta(let start, let separator, _, _): [start.id, separator.id]
        }
    }

    func process(_ encodings: [Encoding], addSpecialTokens: Bool) -> [Encoding] {
        switch self {
        case .sequence(let steps):
            return steps.reduce(encodings) { $1.process($0, addSpecialTokens: addSpecialTokens) }
        case .byteLevel(let trims, let addsPrefixSpace):
            guard trims else { return encodings }
            return encodings.map { Self.trimmed($0, addsPrefixSpace) }
        case .template(let single, let pair):
            return Self.applyTemplate(encodings.count > 1 ? pair : single, encodings, addSpecialTokens)
        case .bert(let start, let separator):
            guard addSpecialTokens else { return encodings }
            return encodings.enumerated().map { index, encoding in
                var result = index == 0 ? start.encoding(typeID: 0) : Encoding()
                var text = encoding
                text.setTypeID(Int32(index))
                result.append(text)
                result.append(separator.encoding(typeID: Int32(index)))
                return result
            }
        case .roberta(let start, let separator, let trims, let addsPrefixSpace):
            return encodings.enumerated().map { index, encoding in
                var text = trims ? Self.trimmed(encoding, addsPrefixSpace) : encoding
                // This model has one type of text only.
                text.setTypeID(0)
                guard addSpecialTokens else { return text }
                var result = (index == 0 ? start : separator).encoding(typeID: 0)
                result.append(text)
                result.append(separator.encoding(typeID: 0))
                return result
            }
        }
    }

    private static func applyTemplate(
        _ template: [TemplatePiece], _ encodings: [Encoding], _ addSpecialTokens: Bool
    ) -> [Encoding] {
        var result: [Encoding] = []
        for piece in template {
            if let ids = piece.ids {
                guard addSpecialTokens else { continue }
                var special = Encoding()
                for (id, token) in zip(ids, piece.tokens) { special.append(.added(id, token, typeID: piece.typeID)) }
                result.append(special)
            } else {
                let index = piece.isSecondText ? 1 : 0
                guard index < encodings.count else { continue }
                var text = encodings[index]
                text.setTypeID(piece.typeID)
                result.append(text)
            }
        }
        return result
    }

    /// Takes the blanks that a token begins and ends with out of its offsets.
    private static func trimmed(_ encoding: Encoding, _ addsPrefixSpace: Bool) -> Encoding {
        var result = encoding
        for (index, token) in encoding.tokens.enumerated() {
            let blanks = blankCounts(Array(token.utf8))
            guard blanks.leading > 0 || blanks.trailing > 0 else { continue }
            func trim(_ range: Range<Int>) -> Range<Int> {
                var (start, end) = (range.lowerBound, range.upperBound)
                if blanks.leading > 0 {
                    let isFirst = index == 0 || start == 0
                    // A single blank that the first token begins with may be the one that was put before the text.
                    let isAdded = isFirst && addsPrefixSpace && blanks.leading == 1
                    start = min(start + (isAdded ? 0 : blanks.leading), end)
                }
                if blanks.trailing > 0, end >= blanks.trailing { end = max(end - blanks.trailing, start) }
                return start..<end
            }
            result.byteOffsets[index] = trim(result.byteOffsets[index])
            result.characterOffsets[index] = trim(result.characterOffsets[index])
        }
        return result
    }

    private static func blankCounts(_ bytes: [UInt8]) -> (leading: Int, trailing: Int) {
        let blank = ByteAlphabet.scalars[0x20]
        var isBlank: [Bool] = []
        AlignedText(bytes, origin: 0, isTracked: false).forEachScalar { scalar, _, _ in
            isBlank.append(scalar == blank || UnicodeProperties.whitespace.contains(scalar))
        }
        return (isBlank.prefix { $0 }.count, isBlank.reversed().prefix { $0 }.count)
    }
}

extension PostProcessor {
    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        func token(_ name: StaticString) throws -> SpecialToken {
            guard let parts = node[name]?.elements, parts.count == 2, let id = parts[1].int,
                let narrow = Int32(exactly: id), narrow >= 0, let spelling = parts[0].string
            else { throw fields.failure(name, "[token, id]") }
            return SpecialToken(id: narrow, spelling: spelling)
        }
        switch try fields.string("type") {
        case "Sequence":
            self = .sequence(
                try fields.array("processors").enumerated().map {
                    try PostProcessor($0.element, at: "\(place).processors[\($0.offset)]")
                })
        case "ByteLevel":
            self = .byteLevel(
                trimsOffsets: try fields.bool("trim_offsets", default: true),
                addsPrefixSpace: try fields.bool("add_prefix_space", default: true))
        case "BertProcessing": self = .bert(start: try token("cls"), separator: try token("sep"))
        case "RobertaProcessing":
            self = .roberta(
                start: try token("cls"), separator: try token("sep"),
                trimsOffsets: try fields.bool("trim_offsets", default: true),
                addsPrefixSpace: try fields.bool("add_prefix_space", default: true))
        case "TemplateProcessing": self = try Self.template(fields)
        case let type: throw TokenizerError(.unsupported, "\(place): unknown post-processor \(type)")
        }
    }

    private static func template(_ fields: FieldReader) throws -> PostProcessor {
        var specials: [String: (ids: [Int32], tokens: [String])] = [:]
        let table = fields.node["special_tokens"]
        try table?.forEachMember { key, value in
            guard let name = JSONNode(document: fields.node.document, index: key).string else { return }
            let node = JSONNode(document: fields.node.document, index: value)
            let ids = node["ids"]?.elements.map { $0.int.flatMap { Int32(exactly: $0) } } ?? [nil]
            guard ids.allSatisfy({ $0.map { $0 >= 0 } ?? false }) else {
                throw TokenizerError(.invalidField, "\(fields.place).special_tokens.\(name).ids: expected ids")
            }
            let tokens = node["tokens"]?.elements.compactMap(\.string) ?? []
            guard tokens.count == ids.count else {
                throw TokenizerError(.invalidField, "\(fields.place).special_tokens.\(name).tokens: one for each id")
            }
            specials[name] = (ids.compactMap(\.self), tokens)
        }
        func pieces(_ name: StaticString) throws -> [TemplatePiece] {
            let pieces = try allPieces(name)
            // Real templates have each text once. Thousands would make an encoding of gigabytes out of a line.
            guard pieces.count(where: { $0.ids == nil }) <= 16,
                pieces.reduce(0, { $0 + ($1.ids?.count ?? 0) }) <= 1 << 16
            else { throw fields.failure(name, "at most 16 sequences and \(1 << 16) special tokens") }
            return pieces
        }
        func allPieces(_ name: StaticString) throws -> [TemplatePiece] {
            try fields.array(name).map { node in
                let special = node["SpecialToken"]
                guard let body = special ?? node["Sequence"], let id = body["id"]?.string,
                    let type = Int32(exactly: body["type_id"]?.int ?? 0)
                else { throw fields.failure(name, "SpecialToken and Sequence pieces") }
                guard special != nil else {
                    guard id == "A" || id == "B" else { throw fields.failure(name, "the sequences A and B") }
                    return TemplatePiece(ids: nil, isSecondText: id == "B", typeID: type)
                }
                guard let special = specials[id] else {
                    throw TokenizerError(.invalidField, "\(fields.place).special_tokens: '\(id)' is missing")
                }
                return TemplatePiece(ids: special.ids, tokens: special.tokens, isSecondText: false, typeID: type)
            }
        }
        return .template(single: try pieces("single"), pair: try pieces("pair"))
    }
}
