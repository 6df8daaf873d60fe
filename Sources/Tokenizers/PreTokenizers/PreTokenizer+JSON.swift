extension PreTokenizer {
    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        func behavior(default fallback: SplitBehavior? = nil) throws -> SplitBehavior {
            guard let text = try fields.optionalString("behavior") else {
                if let fallback { return fallback }
                throw fields.failure("behavior", "a string")
            }
            guard let behavior = SplitBehavior(rawValue: text) else {
                throw fields.failure("behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous")
            }
            return behavior
        }
        switch try fields.string("type") {
        case "Sequence":
            self = .sequence(
                try fields.array("pretokenizers").enumerated().map {
                    try PreTokenizer($0.element, at: "\(place).pretokenizers[\($0.offset)]")
                })
        case "ByteLevel":
            let splits = try fields.bool("use_regex", default: true)
            self = .byteLevel(
                addsPrefixSpace: try fields.bool("add_prefix_space", default: true),
                splits: splits ? try PatternSplitter(KnownPattern.gpt2.source) : nil)
        case "Split":
            let pattern = try TextPattern(node["pattern"], at: "\(place).pattern")
            let invert = try fields.bool("invert", default: false)
            var splitter: PatternSplitter?
            if case .expression(let expression) = pattern { splitter = PatternSplitter(expression) }
            self = .split(pattern, try behavior(), invert: invert, splitter)
        case "Whitespace": self = .whitespace
        case "WhitespaceSplit": self = .whitespaceSplit
        case "BertPreTokenizer": self = .bert
        case "Punctuation": self = .punctuation(try behavior(default: .isolated))
        case "Metaspace": self = .metaspace(try Metaspace(fields))
        case "Digits": self = .digits(individual: try fields.bool("individual_digits", default: false))
        case "CharDelimiterSplit": self = .delimiter(try fields.scalar("delimiter"))
        case "UnicodeScripts": self = .unicodeScripts
        case "FixedLength":
            let length = try fields.count("length", default: 5)
            guard length > 0 else { throw fields.failure("length", "a number, 1 or more") }
            self = .fixedLength(length)
        case let type: throw TokenizerError(.unsupported, "\(place): unknown pre-tokenizer \(type)")
        }
    }
}

extension Metaspace {
    init(_ fields: FieldReader) throws {
        replacement = Array(UTF8Scanner.encode(try fields.scalar("replacement").value))
        let name = try fields.optionalString("prepend_scheme")
        // Older files say `add_prefix_space` instead of a scheme.
        let addsPrefix = try fields.bool("add_prefix_space", default: true)
        guard let scheme = Scheme(rawValue: name ?? (addsPrefix ? "always" : "never")) else {
            throw fields.failure("prepend_scheme", "always, first or never")
        }
        self.scheme = scheme
        splits = try fields.bool("split", default: true)
    }
}
