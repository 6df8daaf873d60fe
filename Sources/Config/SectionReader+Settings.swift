import OrderedCollections

// One call, one setting. `optional…` settings take `null` for nil, which is the default of most.
extension SectionReader {
    // MARK: Numbers

    mutating func int(_ key: String, default value: Int, in range: ClosedRange<Int>, doc: String) -> Int {
        setting(key, .value(value), accepts: integers(range), doc: doc, text: { "\($0)" }) { node throws(Misfit) in
            try node.integer(in: range)
        }
    }

    mutating func optionalInt(_ key: String, in range: ClosedRange<Int>, doc: String) -> Int? {
        optional(key, accepts: integers(range), doc: doc, text: { "\($0)" }) { node throws(Misfit) in
            try node.integer(in: range)
        }
    }

    mutating func number(_ key: String, default value: Double, in range: NumberRange, doc: String) -> Double {
        setting(key, .value(value), accepts: range.description, doc: doc, text: YAMLText.number) {
            node throws(Misfit) in
            try node.number(in: range)
        }
    }

    mutating func optionalNumber(
        _ key: String, default value: Double? = nil, in range: NumberRange, doc: String
    ) -> Double? {
        optional(key, default: value, accepts: range.description, doc: doc, text: YAMLText.number) {
            node throws(Misfit) in
            try node.number(in: range)
        }
    }

    /// A list of as many numbers as the default has.
    mutating func numbers(_ key: String, default value: [Double], in range: NumberRange, doc: String) -> [Double] {
        let accepts = "a list of \(value.count), each \(range.description)"
        let text = { (values: [Double]) in YAMLText.list(values.map(YAMLText.number)) }
        return setting(key, .value(value), accepts: accepts, doc: doc, text: text) { node throws(Misfit) in
            guard case .sequence(let nodes) = node.content, nodes.count == value.count else {
                throw .type("a list of \(value.count) numbers", node)
            }
            return try node.items { item throws(Misfit) in try item.number(in: range) }
        }
    }

    /// A list of numbers of any length; a number alone is a list of one.
    mutating func numberList(_ key: String, in range: NumberRange, doc: String) -> [Double] {
        let text = { (values: [Double]) in YAMLText.list(values.map(YAMLText.number)) }
        return setting(key, .value([]), accepts: "a list, each \(range.description)", doc: doc, text: text) {
            node throws(Misfit) in
            try node.items { item throws(Misfit) in try item.number(in: range) }
        }
    }

    mutating func bool(_ key: String, default value: Bool, doc: String) -> Bool {
        setting(key, .value(value), accepts: "true or false", doc: doc, text: { "\($0)" }) { node throws(Misfit) in
            try node.bool()
        }
    }

    mutating func optionalBool(_ key: String, doc: String) -> Bool? {
        optional(key, accepts: "true or false", doc: doc, text: { "\($0)" }) { node throws(Misfit) in try node.bool() }
    }

    /// Text in which a number may be written as it is.
    mutating func number(text key: String, default value: String, accepts: String, doc: String) -> String {
        setting(key, .value(value), accepts: accepts, doc: doc, text: YAMLText.string) { node throws(Misfit) in
            try node.numberText()
        }
    }

    mutating func optionalText(number key: String, accepts: String, doc: String) -> String? {
        optional(key, accepts: accepts, doc: doc, text: YAMLText.string) { node throws(Misfit) in
            try node.numberText()
        }
    }

    // MARK: Text

    mutating func string(_ key: String, default value: String, doc: String) -> String {
        setting(key, .value(value), accepts: "text", doc: doc, text: YAMLText.string) { node throws(Misfit) in
            try node.string()
        }
    }

    mutating func requiredString(_ key: String, example: String, doc: String) -> String {
        setting(key, .required(example), accepts: "text", doc: doc, text: YAMLText.string) { node throws(Misfit) in
            let text = try node.string()
            if text.isEmpty { throw Misfit(code: .outOfRange, message: "the text is empty", place: node.place) }
            return text
        }
    }

    mutating func optionalString(_ key: String, doc: String) -> String? {
        optional(key, accepts: "text", doc: doc, text: YAMLText.string) { node throws(Misfit) in try node.string() }
    }

    /// Text that becomes part of a file's name.
    mutating func fileName(_ key: String, default value: String, doc: String) -> String {
        let accepts = "letters, digits, '.', '_' and '-', a letter or digit first"
        return setting(key, .value(value), accepts: accepts, doc: doc, text: YAMLText.string) { node throws(Misfit) in
            let text = try node.string()
            guard text.isFileName else { throw .range(node) }
            return text
        }
    }

    /// A list of texts; a text alone is a list of one.
    mutating func strings(_ key: String, default value: [String] = [], doc: String) -> [String] {
        strings(key, .value(value), doc: doc)
    }

    mutating func requiredStrings(_ key: String, example: [String], doc: String) -> [String] {
        strings(key, .required(example), doc: doc)
    }

    private mutating func strings(_ key: String, _ fallback: Fallback<[String]>, doc: String) -> [String] {
        let text = { (items: [String]) in YAMLText.list(items.map(YAMLText.string)) }
        let isRequired = fallback.isRequired
        return setting(key, fallback, accepts: "text or a list of texts", doc: doc, text: text) { node throws(Misfit) in
            let items = try node.items { item throws(Misfit) in
                let text = try item.string()
                if text.isEmpty { throw Misfit(code: .outOfRange, message: "an empty text", place: item.place) }
                return text
            }
            if isRequired && items.isEmpty { throw Misfit(code: .outOfRange, message: "the list is empty") }
            return items
        }
    }

    /// Names of modules, none of them by default.
    mutating func moduleNames(_ key: String, doc: String) -> [String] {
        let text = { (items: [String]) in YAMLText.list(items.map(YAMLText.string)) }
        return setting(key, .value([]), accepts: "a name or a list of names", doc: doc, text: text) {
            node throws(Misfit) in
            node.isNull ? [] : try node.moduleNames()
        }
    }

    /// Names of modules, or nil for `all-linear`.
    mutating func targetModules(_ key: String, doc: String) -> [String]? {
        let text = { (items: [String]?) in items.map { YAMLText.list($0.map(YAMLText.string)) } ?? Self.allLinear }
        return setting(key, .value(nil), accepts: "all-linear, or a list of names", doc: doc, text: text) {
            node throws(Misfit) in
            if case .scalar(let scalar) = node.content, scalar.text == Self.allLinear { return nil }
            let names = try node.moduleNames()
            if names.isEmpty { throw Misfit(code: .outOfRange, message: "the list is empty") }
            return names
        }
    }

    private static var allLinear: String { "all-linear" }

    // MARK: Words

    /// One of an enumeration's cases.
    mutating func choice<Choice: SettingWord & CaseIterable>(_ key: String, default value: Choice, doc: String)
        -> Choice
    {
        word(key, default: value, accepts: alternatives(Choice.allCases.map(\.word)), doc: doc)
    }

    mutating func choices<Choice: SettingWord & CaseIterable>(
        _ key: String, default value: [Choice], doc: String
    ) -> [Choice] {
        words(key, default: value, accepts: "one or a list of " + alternatives(Choice.allCases.map(\.word)), doc: doc)
    }

    mutating func words<Word: SettingWord>(
        _ key: String, default value: [Word], accepts: String, doc: String
    ) -> [Word] {
        let name = keyPath(key)
        let text = { (items: [Word]) in YAMLText.list(items.map { YAMLText.string($0.word) }) }
        return setting(key, .value(value), accepts: accepts, doc: doc, text: text) { node throws(Misfit) in
            try node.items { item throws(Misfit) in
                try item.word(Word.self, accepts: accepts, knownElsewhere: PeerValues.note(item, for: name))
            }
        }
    }

    mutating func word<Word: SettingWord>(_ key: String, default value: Word, accepts: String, doc: String) -> Word {
        let name = keyPath(key)
        let text = { (value: Word) in YAMLText.string(value.word) }
        return setting(key, .value(value), accepts: accepts, doc: doc, text: text) { node throws(Misfit) in
            try node.word(Word.self, accepts: accepts, knownElsewhere: PeerValues.note(node, for: name))
        }
    }

    /// A name that a registry knows.
    mutating func name(_ key: String, default value: String, from known: [String], doc: String) -> String {
        let text = keyPath(key)
        let accepts = alternatives(known)
        return setting(key, .value(value), accepts: accepts, doc: doc, text: YAMLText.string) { node throws(Misfit) in
            try node.name(from: known, accepts: accepts, keyPath: text)
        }
    }

    mutating func optionalName(_ key: String, from known: [String], example: String?, doc: String) -> String? {
        let text = keyPath(key)
        let accepts = alternatives(known)
        return optional(key, accepts: accepts, example: example, doc: doc, text: YAMLText.string) {
            node throws(Misfit) in
            try node.name(from: known, accepts: accepts, keyPath: text)
        }
    }

    // MARK: Collections

    /// Numbers by names that a registry knows.
    mutating func weights(_ key: String, from known: [String], doc: String) -> OrderedDictionary<String, Double> {
        let name = keyPath(key)
        let accepts = "a mapping from \(alternatives(known)) to numbers"
        let text = { (weights: OrderedDictionary<String, Double>) in
            YAMLText.mapping(weights.map { ($0.key, YAMLText.number($0.value)) })
        }
        return setting(key, .value([:]), accepts: accepts, doc: doc, text: text) { node throws(Misfit) in
            guard case .mapping(let entries) = node.content else { throw .type("a mapping", node) }
            var weights: OrderedDictionary<String, Double> = [:]
            for (key, entry) in entries {
                let keyNode = ConfigNode(content: .scalar(.init(text: key, isPlain: true)), place: entry.keyPlace)
                let reward = try keyNode.name(from: known, accepts: alternatives(known), keyPath: name)
                weights[reward] = try entry.node.number(in: .any)
            }
            return weights
        }
    }

    /// Numbers of things by names that the user chooses, in order.
    mutating func sizes(_ key: String, in range: ClosedRange<Int>, doc: String) -> OrderedDictionary<String, Int> {
        let accepts = "a mapping from names to integers, \(range.lowerBound) to \(range.upperBound)"
        let text = { (sizes: OrderedDictionary<String, Int>) in
            YAMLText.mapping(sizes.map { ($0.key, "\($0.value)") })
        }
        return setting(key, .value([:]), accepts: accepts, doc: doc, text: text) { node throws(Misfit) in
            guard case .mapping(let entries) = node.content else { throw .type("a mapping", node) }
            var sizes: OrderedDictionary<String, Int> = [:]
            for (name, entry) in entries {
                guard name.isFileName else {
                    throw Misfit(
                        code: .outOfRange, message: "'\(shortened(name))' is no name for a pool",
                        remedy: "take letters, digits, '.', '_' and '-', a letter or digit first", place: entry.keyPlace
                    )
                }
                sizes[name] = try entry.node.integer(in: range)
            }
            return sizes
        }
    }

    /// A list of small sections.
    mutating func records<Record>(
        _ key: String, accepts: String, doc: String, _ read: (inout SectionReader) -> Record
    ) -> [Record] {
        let ledger = ledger
        let name = keyPath(key)
        var texts: [String] = []
        var records: [Record] = []
        _ = setting(key, .value(0), accepts: accepts, doc: doc, text: { _ in YAMLText.list(texts) }) {
            node throws(Misfit) in
            guard case .sequence(let nodes) = node.content else { throw .type("a list", node) }
            for (index, node) in nodes.enumerated() {
                let own = Ledger(ledger.names, peers: ledger.peers, top: node.place)
                var reader = SectionReader(node, path: ["\(name)[\(index)]"], ledger: own)
                records.append(read(&reader))
                reader.finish()
                ledger.problems += own.problems + UnknownKeys(own).judge(own.unknown)
                texts.append(
                    YAMLText.mapping(
                        own.declarations.compactMap { declaration in
                            guard case .setting(_, let value, _, _, _) = declaration.role else { return nil }
                            return (declaration.path[declaration.path.count - 1], value)
                        }))
            }
            return nodes.count
        }
        return records
    }

    // MARK: Null

    private mutating func optional<Value>(
        _ key: String, default value: Value? = nil, accepts: String, example: Value? = nil, doc: String,
        text: @escaping (Value) -> String,
        parse: (ConfigNode) throws(Misfit) -> Value
    ) -> Value? {
        setting(
            key, .value(value), accepts: accepts + ", or null", example: example.map(Optional.some), allowsNull: true,
            doc: doc, text: { YAMLText.optional($0, text) }
        ) { node throws(Misfit) in
            node.isNull ? nil : try parse(node)
        }
    }
}

func alternatives(_ words: [String]) -> String {
    guard let last = words.last, words.count > 1 else { return words.first ?? "nothing" }
    return words.dropLast().joined(separator: ", ") + " or " + last
}

extension ConfigNode {
    /// A text, or a number as it was written.
    func numberText() throws(Misfit) -> String {
        guard case .scalar(let scalar) = content else { throw .type("text or a number", self) }
        switch scalar.value {
        case .string, .integer, .oversizeInteger, .number: return scalar.text
        default: throw .type("text or a number", self)
        }
    }

    /// PEFT reads a lone text as a regular expression; names are all that is read here.
    func moduleNames() throws(Misfit) -> [String] {
        try items { item throws(Misfit) in
            let name = try item.string()
            guard !name.isEmpty, name.utf8.allSatisfy({ $0.isLetterOrDigit || "._".utf8.contains($0) }) else {
                throw Misfit(
                    code: .notSupported,
                    message: "\(item.summary) is no module's name; regular expressions are not supported",
                    remedy: "list names, as [q_proj, v_proj]", place: item.place)
            }
            return name
        }
    }

    func name(from known: [String], accepts: String, keyPath: String) throws(Misfit) -> String {
        guard case .scalar(let scalar) = content, scalar.value != .null else { throw .type(accepts, self) }
        if known.contains(scalar.text) { return scalar.text }
        throw .word(self, accepts: accepts, knownElsewhere: PeerValues.note(self, for: keyPath))
    }
}

extension String {
    /// Whether it may be part of a file's name: letters, digits, `.`, `_` and `-`, a letter or digit first.
    fileprivate var isFileName: Bool {
        (utf8.first?.isLetterOrDigit ?? false) && utf8.allSatisfy { $0.isLetterOrDigit || "._-".utf8.contains($0) }
            && utf8.count <= 128
    }
}
