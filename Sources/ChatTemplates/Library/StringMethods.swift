import OrderedCollections

/// The methods of Python's `str`.
enum StringMethods {
    private typealias Body = @Sendable (Interpreter, Value, String, BoundArguments) throws -> Value

    private struct Method: Sendable {
        let parameters: Parameters
        let body: Body

        init(_ name: String, _ names: [String] = [], required: Int = 0, _ body: @escaping Body) {
            parameters = Parameters(function: name, names: names, required: required)
            self.body = body
        }
    }

    static func method(_ name: String, of value: Value) -> Value? {
        guard let text = value.text else { return nil }
        if name == "format" {
            return .callable(
                Callable(name, typeName: "builtin_function_or_method") { interpreter, arguments in
                    try interpreter.string(try BraceFormat.format(text, arguments, interpreter))
                })
        }
        if name == "format_map" {
            return .callable(
                Callable(name, typeName: "builtin_function_or_method") { interpreter, arguments in
                    guard arguments.keywords.isEmpty, arguments.positional.count == 1,
                        case .dictionary(let mapping) = arguments.positional[0]
                    else { throw TemplateError(.type, "format_map() takes exactly one mapping") }
                    let keywords = mapping.entries.compactMap { key, value in key.value.text.map { ($0, value) } }
                    return try interpreter.string(
                        try BraceFormat.format(text, Arguments(keywords: keywords), interpreter))
                })
        }
        guard let method = table[name] else { return nil }
        return .callable(
            Callable(name, typeName: "builtin_function_or_method") { interpreter, arguments in
                try interpreter.charge(value, with: arguments)
                return try method.body(interpreter, value, text, try method.parameters.bind(arguments))
            })
    }

    static func method(_ name: String, of bytes: [UInt8]) -> Value? {
        guard name == "decode" else { return nil }
        return .callable(
            Callable(name, typeName: "builtin_function_or_method") { interpreter, _ in
                guard let text = String(validating: bytes, as: UTF8.self) else {
                    throw TemplateError(.value, "the bytes are not UTF-8")
                }
                return try interpreter.string(text)
            })
    }

    private static let table: [String: Method] = {
        var table: [String: Method] = [:]
        for method in changes + splits + searches + checks { table[method.parameters.function] = method }
        return table
    }()

    // MARK: Changes

    private static func change(_ name: String, _ body: @escaping @Sendable (String) -> String) -> Method {
        Method(name) { interpreter, value, text, _ in try interpreter.like(value, body(text)) }
    }

    private static func stripping(_ name: String, _ side: PythonText.Side) -> Method {
        Method(name, ["chars"]) { interpreter, value, text, arguments in
            try interpreter.like(value, strip(text, side, try arguments.optionalText(0)))
        }
    }

    private static func padding(_ name: String, _ side: PythonText.Side) -> Method {
        Method(name, ["width", "fillchar"], required: 1) { interpreter, value, text, arguments in
            let fill = try arguments.optionalText(1) ?? " "
            guard PythonText.count(fill) == 1 else {
                throw TemplateError(.type, "The fill character must be exactly one character long")
            }
            return try interpreter.like(
                value, try pad(text, try arguments.integer(0, default: 0), fill, side, interpreter))
        }
    }

    private static let changes: [Method] = [
        change("upper") { PythonCase.upper($0) },
        change("lower") { PythonCase.lower($0) },
        change("capitalize") { PythonCase.capitalize($0) },
        change("title") { PythonCase.title($0) },
        change("swapcase") { PythonCase.swap($0) },
        change("casefold") { PythonCase.fold($0) },
        stripping("strip", .both),
        stripping("lstrip", .start),
        stripping("rstrip", .end),
        padding("ljust", .end),
        padding("rjust", .start),
        padding("center", .both),
        Method("zfill", ["width"], required: 1) { interpreter, value, text, arguments in
            let missing = max(try arguments.integer(0, default: 0), 0) - PythonText.count(text)
            if missing <= 0 { return value }
            try interpreter.allocate(missing)
            let zeros = String(repeating: "0", count: missing)
            let hasSign = text.utf8.first == UInt8(ascii: "-") || text.utf8.first == UInt8(ascii: "+")
            let filled = hasSign ? String(text.unicodeScalars.prefix(1)) + zeros + text.dropFirst() : zeros + text
            return try interpreter.like(value, filled)
        },
        Method("replace", ["old", "new", "count"], required: 2) { interpreter, value, text, arguments in
            let count = try arguments.integer(2, default: -1)
            var new = try arguments.text(1)
            if case .markup = value, case .string(let plain)? = arguments[1] { new = Markup.escape(plain) }
            return try interpreter.like(
                value,
                try PythonText.replace(text, try arguments.text(0), new, count: count) {
                    try interpreter.allocate($0, times: $1)
                })
        },
        Method("removeprefix", ["prefix"], required: 1) { interpreter, value, text, arguments in
            let part = try arguments.text(0).utf8
            let matches = text.utf8.starts(with: part)
            return matches ? try interpreter.like(value, PythonText.string(text.utf8.dropFirst(part.count))) : value
        },
        Method("removesuffix", ["suffix"], required: 1) { interpreter, value, text, arguments in
            let part = try arguments.text(0).utf8
            let matches = text.utf8.reversed().starts(with: part.reversed())
            return matches ? try interpreter.like(value, PythonText.string(text.utf8.dropLast(part.count))) : value
        },
        Method("expandtabs", ["tabsize"]) { interpreter, value, text, arguments in
            let size = try arguments.integer(0, default: 8)
            try interpreter.allocate(text.utf8.count { $0 == 9 }, times: max(size, 1))
            return try interpreter.like(value, expandingTabs(text, size))
        },
        Method("join", ["iterable"], required: 1) { interpreter, value, text, arguments in
            var result = ""
            for (index, item) in try interpreter.elements(of: arguments.value(0)).enumerated() {
                guard let part = item.text else {
                    throw TemplateError(
                        .type, "sequence item \(index): expected str instance, \(item.typeName) found")
                }
                if index > 0 { result += text }
                result += part
                if result.utf8.count > interpreter.limits.outputBytes { throw Budget.tooLong(interpreter.limits) }
            }
            return try interpreter.like(value, result)
        },
        Method("encode", ["encoding", "errors"]) { interpreter, _, text, arguments in
            let encoding = try arguments.optionalText(0) ?? "utf-8"
            guard ["utf-8", "utf8", "ascii"].contains(encoding.lowercased()) else {
                throw TemplateError(.lookup, "unknown encoding: \(encoding)")
            }
            try interpreter.allocate(text.utf8.count)
            return .bytes(Array(text.utf8))
        },
    ]

    static func strip(_ text: String, _ side: PythonText.Side, _ characters: String?) -> String {
        guard let characters else { return PythonText.strip(text, side, where: \.isPythonSpace) }
        let stripped = Set(characters.unicodeScalars)
        return PythonText.strip(text, side) { stripped.contains($0) }
    }

    static func pad(
        _ text: String, _ width: Int, _ fill: String, _ side: PythonText.Side, _ interpreter: Interpreter
    ) throws -> String {
        let count = PythonText.count(text)
        guard width > count else { return text }
        let missing = width - count
        try interpreter.allocate(missing, times: fill.utf8.count)
        let left =
            switch side {
            case .start: missing
            case .end: 0
            // As CPython: of an odd one, the left side gets the larger half where the width is odd too.
            case .both: missing / 2 + (missing & width & 1)
            }
        return String(repeating: fill, count: left) + text + String(repeating: fill, count: missing - left)
    }

    private static func expandingTabs(_ text: String, _ size: Int) -> String {
        var result = String.UnicodeScalarView()
        var column = 0
        for scalar in text.unicodeScalars {
            if scalar == "\t" {
                if size > 0 {
                    let count = size - column % size
                    result.append(contentsOf: repeatElement(" ", count: count))
                    column += count
                }
            } else {
                result.append(scalar)
                column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
            }
        }
        return String(result)
    }

    // MARK: Splits

    private static func splitting(_ name: String, fromEnd: Bool) -> Method {
        Method(name, ["sep", "maxsplit"]) { interpreter, value, text, arguments in
            let limit = try arguments.integer(1, default: -1)
            try interpreter.reserve(text.utf8.count / 4)
            let pieces: [String]
            if let separator = try arguments.optionalText(0) {
                guard !separator.isEmpty else { throw TemplateError(.value, "empty separator") }
                pieces =
                    fromEnd
                    ? PythonText.splitFromEnd(text, by: separator, limit: limit)
                    : PythonText.split(text, by: separator, limit: limit)
            } else {
                pieces =
                    fromEnd ? PythonText.wordsFromEnd(text, limit: limit) : PythonText.words(text, limit: limit)
            }
            return try interpreter.list(try pieces.map { try interpreter.like(value, $0) })
        }
    }

    private static func partitioning(_ name: String, fromEnd: Bool) -> Method {
        Method(name, ["sep"], required: 1) { interpreter, value, text, arguments in
            let separator = try arguments.text(0)
            guard !separator.isEmpty else { throw TemplateError(.value, "empty separator") }
            let pieces =
                fromEnd
                ? PythonText.splitFromEnd(text, by: separator, limit: 1)
                : PythonText.split(text, by: separator, limit: 1)
            let parts: [String] =
                pieces.count == 2
                ? [pieces[0], separator, pieces[1]] : fromEnd ? ["", "", text] : [text, "", ""]
            return try interpreter.tuple(try parts.map { try interpreter.like(value, $0) })
        }
    }

    private static let splits: [Method] = [
        splitting("split", fromEnd: false),
        splitting("rsplit", fromEnd: true),
        partitioning("partition", fromEnd: false),
        partitioning("rpartition", fromEnd: true),
        Method("splitlines", ["keepends"]) { interpreter, value, text, arguments in
            let lines = PythonText.lines(text, keepEnds: arguments.flag(0))
            return try interpreter.list(try lines.map { try interpreter.like(value, $0) })
        },
    ]

    // MARK: Searches

    /// The bytes of `text[start:end]`, both in code points, and how many code points come before.
    private static func window(
        _ text: String, _ arguments: BoundArguments
    ) throws -> (bytes: ArraySlice<UInt8>, before: Int)? {
        let bytes = Array(text.utf8)
        guard arguments[1] != nil || arguments[2] != nil else { return (bytes[...], 0) }
        let count = PythonText.count(text)
        func clamped(_ index: Int) -> Int { index < 0 ? max(index < -count ? 0 : index + count, 0) : index }
        let start = clamped(try arguments.optionalInteger(1) ?? 0)
        let end = min(clamped(try arguments.optionalInteger(2) ?? count), count)
        guard start <= end else { return nil }
        let scalars = text.unicodeScalars
        let prefix = scalars.prefix(start).reduce(0) { $0 + UTF8.width($1) }
        let length = scalars.dropFirst(start).prefix(end - start).reduce(0) { $0 + UTF8.width($1) }
        return (bytes[prefix..<(prefix + length)], start)
    }

    private static func finding(_ name: String, fromEnd: Bool, raises: Bool) -> Method {
        Method(name, ["sub", "start", "end"], required: 1) { _, _, text, arguments in
            let part = Array(try arguments.text(0).utf8)
            if let (bytes, before) = try window(text, arguments) {
                let place = fromEnd ? PythonText.findLast(part, in: bytes) : PythonText.find(part, in: bytes)
                if let place { return .int(before + PythonText.scalarOffset(bytes[..<place])) }
            }
            if raises { throw TemplateError(.value, "substring not found") }
            return .int(-1)
        }
    }

    private static func affixed(_ name: String, atEnd: Bool) -> Method {
        Method(name, ["prefix", "start", "end"], required: 1) { _, _, text, arguments in
            let parts: [Value] =
                if case .tuple(let elements) = arguments.value(0) { elements.items } else { [arguments.value(0)] }
            let window = try window(text, arguments)
            for part in parts {
                guard let part = part.text else {
                    throw TemplateError(
                        .type, "\(name) first arg must be str or a tuple of str, not \(part.typeName)")
                }
                guard let window, part.utf8.count <= window.bytes.count else { continue }
                let edge = atEnd ? window.bytes.suffix(part.utf8.count) : window.bytes.prefix(part.utf8.count)
                if edge.elementsEqual(part.utf8) { return .bool(true) }
            }
            return .bool(false)
        }
    }

    private static let searches: [Method] = [
        finding("find", fromEnd: false, raises: false),
        finding("rfind", fromEnd: true, raises: false),
        finding("index", fromEnd: false, raises: true),
        finding("rindex", fromEnd: true, raises: true),
        affixed("startswith", atEnd: false),
        affixed("endswith", atEnd: true),
        Method("count", ["sub", "start", "end"], required: 1) { _, _, text, arguments in
            guard let (bytes, _) = try window(text, arguments) else { return .int(0) }
            let part = Array(try arguments.text(0).utf8)
            if part.isEmpty { return .int(PythonText.scalarOffset(bytes) + 1) }
            var count = 0
            var from = bytes.startIndex
            while let place = PythonText.find(part, in: bytes[from...]) {
                count += 1
                from = place + part.count
            }
            return .int(count)
        },
    ]

    // MARK: Checks

    private static func check(_ name: String, _ holds: @escaping @Sendable (Unicode.Scalar) -> Bool) -> Method {
        Method(name) { _, _, text, _ in .bool(!text.isEmpty && text.unicodeScalars.allSatisfy(holds)) }
    }

    static func isAlphabetic(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }

    private static func isDigit(_ scalar: Unicode.Scalar) -> Bool {
        let type = scalar.properties.numericType
        return type == .decimal || type == .digit
    }

    static func isAlphanumeric(_ scalar: Unicode.Scalar) -> Bool {
        isAlphabetic(scalar) || scalar.properties.numericType != nil
    }

    private static let checks: [Method] = [
        check("isalpha") { isAlphabetic($0) },
        check("isalnum") { isAlphanumeric($0) },
        check("isdecimal") { $0.properties.numericType == .decimal },
        check("isdigit") { isDigit($0) },
        check("isnumeric") { $0.properties.numericType != nil },
        check("isspace") { $0.isPythonSpace },
        Method("isascii") { _, _, text, _ in .bool(text.utf8.allSatisfy { $0 < 0x80 }) },
        Method("isprintable") { _, _, text, _ in .bool(text.unicodeScalars.allSatisfy(\.isPythonPrintable)) },
        Method("islower") { _, _, text, _ in .bool(PythonCase.isAll(text, lower: true)) },
        Method("isupper") { _, _, text, _ in .bool(PythonCase.isAll(text, lower: false)) },
        Method("istitle") { _, _, text, _ in .bool(PythonCase.isTitled(text)) },
        Method("isidentifier") { _, _, text, _ in
            guard let first = text.unicodeScalars.first else { return .bool(false) }
            let starts = first == "_" || first.properties.isXIDStart
            return .bool(starts && text.unicodeScalars.dropFirst().allSatisfy(\.properties.isXIDContinue))
        },
    ]
}
