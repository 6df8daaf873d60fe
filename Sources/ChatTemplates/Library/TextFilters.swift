import OrderedCollections

/// Filters on text.
enum TextFilters {
    static let table: [String: Filter] = [
        "upper": mapping("upper") { PythonCase.upper($0) },
        "lower": mapping("lower") { PythonCase.lower($0) },
        "capitalize": mapping("capitalize") { PythonCase.capitalize($0) },
        "title": mapping("title") { title($0) },
        "trim": Filter("trim", ["chars"]) { interpreter, value, arguments in
            let text = try Printer.string(value, interpreter)
            let characters = try arguments.optionalText(0)
            return try interpreter.like(value, StringMethods.strip(text, .both, characters))
        },
        "replace": Filter("replace", ["old", "new", "count"], required: 2) { interpreter, value, arguments in
            let text = try Printer.string(value, interpreter)
            let old = try Printer.string(arguments.value(0), interpreter)
            let new = try Printer.string(arguments.value(1), interpreter)
            let count = try arguments.optionalInteger(2) ?? -1
            return try interpreter.string(
                try PythonText.replace(text, old, new, count: count) { try interpreter.allocate($0, times: $1) })
        },
        "center": Filter("center", ["width"]) { interpreter, value, arguments in
            let text = try Printer.string(value, interpreter)
            let width = try arguments.integer(0, default: 80)
            return try interpreter.like(value, try StringMethods.pad(text, width, " ", .both, interpreter))
        },
        "indent": Filter("indent", ["width", "first", "blank"]) { try indent($0, $1, $2) },
        "truncate": Filter("truncate", ["length", "killwords", "end", "leeway"]) { try truncate($0, $1, $2) },
        "wordwrap": Filter("wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"]) {
            try wrap($0, $1, $2)
        },
        "wordcount": Filter("wordcount") { interpreter, value, _ in
            .int(wordCount(try Printer.string(value, interpreter)))
        },
        "format": Filter(raw: { interpreter, value, arguments in
            guard arguments.positional.isEmpty || arguments.keywords.isEmpty else {
                throw TemplateError(.type, "can't handle positional and keyword arguments at the same time")
            }
            let format = try Printer.string(value, interpreter)
            let values: Value =
                arguments.keywords.isEmpty ? .tuple(arguments.positional) : try Globals.dictionary(arguments.keywords)
            return try interpreter.string(try PercentFormat.format(format, values, interpreter))
        }),
        "escape": Filter("escape") { interpreter, value, _ in
            if case .markup = value { return value }
            let escaped = Markup.escape(try Printer.string(value, interpreter))
            try interpreter.allocate(escaped.utf8.count)
            return .markup(escaped)
        },
        "forceescape": Filter("forceescape") { interpreter, value, _ in
            let escaped = Markup.escape(try Printer.string(value, interpreter))
            try interpreter.allocate(escaped.utf8.count)
            return .markup(escaped)
        },
        "striptags": Filter("striptags") { interpreter, value, _ in
            try interpreter.string(MarkupText.strippingTags(try Printer.string(value, interpreter)))
        },
        "xmlattr": Filter("xmlattr", ["autospace"]) { try xmlAttributes($0, $1, $2) },
        "urlencode": Filter("urlencode") { interpreter, value, _ in try urlEncode(interpreter, value) },
        "urlize": Filter(raw: { _, _, _ in
            throw TemplateError(.runtime, "the filter urlize is not supported: chat templates make no web pages")
        }),
    ]

    private static func mapping(_ name: String, _ change: @escaping @Sendable (String) -> String) -> Filter {
        Filter(name) { interpreter, value, _ in
            try interpreter.like(value, change(try Printer.string(value, interpreter)))
        }
    }

    /// Jinja2's own title case: words begin after spaces, hyphens and opening brackets.
    private static func title(_ text: String) -> String {
        func isBreak(_ scalar: Unicode.Scalar) -> Bool {
            scalar.isPythonSpace || ["-", "(", "{", "[", "<"].contains(scalar)
        }
        var result = ""
        var rest = text.unicodeScalars[...]
        while let first = rest.first {
            let isGap = isBreak(first)
            let end = rest.firstIndex { isBreak($0) != isGap } ?? rest.endIndex
            let piece = String(rest[..<end])
            if isGap {
                result += piece
            } else {
                result += first.properties.uppercaseMapping
                result += PythonCase.lower(String(piece.unicodeScalars.dropFirst()))
            }
            rest = rest[end...]
        }
        return result
    }

    private static func indent(_ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments) throws -> Value
    {
        if case .undefined(let missing) = value { throw missing.error }
        guard let text = value.text else {
            throw TemplateError(.type, "indent: '\(value.typeName)' and 'str' cannot be added")
        }
        var indentation = "    "
        if let given = arguments[0]?.text {
            indentation = given
        } else if arguments[0] != nil {
            let width = max(0, try arguments.integer(0, default: 4))
            try interpreter.allocate(width)
            indentation = String(repeating: " ", count: width)
        }
        let lines = PythonText.lines(text + "\n", keepEnds: false)
        try interpreter.allocate(lines.count, times: indentation.utf8.count + 1)
        var result = arguments.flag(1) ? indentation : ""
        for (index, line) in lines.enumerated() {
            if index > 0 {
                result += "\n"
                if arguments.flag(2) || !line.isEmpty { result += indentation }
            }
            result += line
        }
        return try interpreter.like(value, result)
    }

    private static func truncate(
        _ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments
    ) throws -> Value {
        let length = try arguments.integer(0, default: 255)
        let end = try arguments[2].map { _ in try arguments.text(2) } ?? "..."
        let leeway = try arguments.optionalInteger(3) ?? 5
        let endCount = PythonText.count(end)
        guard length >= endCount else { throw TemplateError(.value, "expected length >= \(endCount), got \(length)") }
        guard leeway >= 0 else { throw TemplateError(.value, "expected leeway >= 0, got \(leeway)") }
        let count = try SequenceFilters.length(value, interpreter)
        if count - leeway <= length { return value }
        guard let text = value.text else {
            throw TemplateError(.type, "truncate: '\(value.typeName)' is not a string")
        }
        let kept = String(text.unicodeScalars.prefix(length - endCount))
        if arguments.flag(1) { return try interpreter.string(kept + end) }
        return try interpreter.string(PythonText.splitFromEnd(kept, by: " ", limit: 1)[0] + end)
    }

    private static func wrap(_ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments) throws -> Value {
        guard let text = value.text else {
            if case .undefined(let missing) = value { throw missing.error }
            throw TemplateError(.type, "wordwrap: '\(value.typeName)' is not a string")
        }
        let width = try arguments.integer(0, default: 79)
        guard width > 0 else { throw TemplateError(.value, "invalid width \(width) (must be > 0)") }
        let separator = try arguments.optionalText(2) ?? "\n"
        let wrapper = TextWrapper(
            width: width, breaksLongWords: arguments[1]?.isTruthy ?? true,
            breaksOnHyphens: arguments[3]?.isTruthy ?? true)
        let lines = PythonText.lines(text, keepEnds: false)
            .map { wrapper.lines($0).joined(separator: separator) }
        try interpreter.allocate(text.utf8.count + 1, times: separator.utf8.count + 1)
        return try interpreter.string(lines.joined(separator: separator))
    }

    private static func wordCount(_ text: String) -> Int {
        var count = 0
        var isInWord = false
        for scalar in text.unicodeScalars {
            let isWord = scalar == "_" || StringMethods.isAlphanumeric(scalar)
            if isWord, !isInWord { count += 1 }
            isInWord = isWord
        }
        return count
    }

    private static func xmlAttributes(
        _ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments
    ) throws -> Value {
        if case .undefined(let missing) = value { throw missing.error }
        guard case .dictionary(let mapping) = value else {
            throw TemplateError(.lookup, "'\(value.typeName)' object has no attribute 'items'")
        }
        var parts: [String] = []
        for (key, value) in mapping.entries where !value.isNone && !value.isUndefined {
            guard let name = key.value.text else { throw TemplateError(.type, "an attribute's name must be a string") }
            let wrong: Set<Unicode.Scalar> = [" ", "\t", "\n", "\r", "\u{B}", "\u{C}", "/", ">", "="]
            guard !name.unicodeScalars.contains(where: { wrong.contains($0) }) else {
                throw TemplateError(.value, "Invalid character in attribute name: \(PythonText.repr(name))")
            }
            var shown = try Printer.string(value, interpreter)
            if case .markup = value {} else { shown = Markup.escape(shown) }
            parts.append("\(Markup.escape(name))=\"\(shown)\"")
        }
        let result = parts.joined(separator: " ")
        return try interpreter.string(arguments[0]?.isTruthy ?? true && !result.isEmpty ? " " + result : result)
    }

    private static func urlEncode(_ interpreter: Interpreter, _ value: Value) throws -> Value {
        func quoted(_ value: Value, isQuery: Bool) throws -> String {
            let text = try Printer.string(value, interpreter)
            try interpreter.allocate(text.utf8.count, times: 3)
            return MarkupText.percentEncoded(text, isQuery: isQuery)
        }
        if value.text != nil || !value.isIterable { return try interpreter.string(try quoted(value, isQuery: false)) }
        let pairs: [Value] =
            if case .dictionary(let mapping) = value { mapping.pairs } else { try interpreter.elements(of: value) }
        let parts = try pairs.map { pair in
            let items = try interpreter.elements(of: pair)
            guard items.count == 2 else { throw TemplateError(.value, "urlencode takes pairs") }
            return try quoted(items[0], isQuery: true) + "=" + quoted(items[1], isQuery: true)
        }
        return try interpreter.string(parts.joined(separator: "&"))
    }
}

extension Interpreter {
    /// Text made from a value: marked as safe where that value was.
    func like(_ value: Value, _ text: String) throws -> Value {
        try allocate(text.utf8.count)
        if case .markup = value { return .markup(text) }
        return .string(text)
    }
}
