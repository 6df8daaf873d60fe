/// How one value is laid out: shared by `%` formatting, `format()` and `{…:…}`.
struct FormatSpecification {
    var fill: Unicode.Scalar = " "
    var alignment: Unicode.Scalar?
    var sign: Unicode.Scalar = "-"
    var isAlternate = false
    var width = 0
    var grouping: Unicode.Scalar?
    var precision: Int?
    var kind: Unicode.Scalar?

    /// Parses Python's mini-language: `[[fill]align][sign][#][0][width][,][.precision][type]`.
    static func parse(_ text: String) throws -> FormatSpecification {
        var result = FormatSpecification()
        var rest = Array(text.unicodeScalars)[...]
        let alignments: Set<Unicode.Scalar> = ["<", ">", "=", "^"]
        if rest.count > 1, alignments.contains(rest[rest.startIndex + 1]) {
            result.fill = rest.removeFirst()
            result.alignment = rest.removeFirst()
        } else if let first = rest.first, alignments.contains(first) {
            result.alignment = rest.removeFirst()
        }
        if let first = rest.first, ["+", "-", " "].contains(first) { result.sign = rest.removeFirst() }
        if rest.first == "#" {
            rest.removeFirst()
            result.isAlternate = true
        }
        if rest.first == "0" {
            rest.removeFirst()
            if result.alignment == nil {
                result.fill = "0"
                result.alignment = "="
            }
        }
        result.width = try number(&rest) ?? 0
        if let first = rest.first, first == "," || first == "_" { result.grouping = rest.removeFirst() }
        if rest.first == "." {
            rest.removeFirst()
            guard let precision = try number(&rest) else {
                throw TemplateError(.value, "Format specifier missing precision")
            }
            result.precision = precision
        }
        result.kind = rest.popFirst()
        guard rest.isEmpty else { throw TemplateError(.value, "Invalid format specifier '\(text)'") }
        return result
    }

    static func number(_ rest: inout ArraySlice<Unicode.Scalar>) throws -> Int? {
        var value: Int?
        while let first = rest.first, ("0"..."9").contains(first) {
            rest.removeFirst()
            let (tens, isTooLarge) = (value ?? 0).multipliedReportingOverflow(by: 10)
            guard !isTooLarge, tens < Int.max - 9 else { throw TemplateError(.value, "Too many decimal digits") }
            value = tens + Int(first.value - 48)
        }
        return value
    }

    func format(_ value: Value, _ interpreter: Interpreter) throws -> String {
        switch value {
        case .string(let text), .markup(let text): return try layOut(text: text, interpreter)
        case .double(let number): return try format(number, isWhole: false, interpreter)
        case .int, .bool:
            if isPlain, case .bool = value { return try layOut(text: value.isTruthy ? "True" : "False", interpreter) }
            let integer = value.integer ?? 0
            switch kind {
            case nil, "d", "n": return try layOut(integer, String(integer.magnitude), "", interpreter)
            case "x": return try layOut(integer, String(integer.magnitude, radix: 16), "0x", interpreter)
            case "X":
                return try layOut(integer, String(integer.magnitude, radix: 16, uppercase: true), "0X", interpreter)
            case "o": return try layOut(integer, String(integer.magnitude, radix: 8), "0o", interpreter)
            case "b": return try layOut(integer, String(integer.magnitude, radix: 2), "0b", interpreter)
            case "c":
                guard let scalar = UInt32(exactly: integer).flatMap(Unicode.Scalar.init) else {
                    throw TemplateError(.value, "%c arg not in range(0x110000)")
                }
                return try layOut(text: String(scalar), interpreter)
            default: return try format(Double(integer), isWhole: true, interpreter)
            }
        default:
            guard self.isPlain else {
                throw TemplateError(.type, "unsupported format string passed to \(value.typeName).__format__")
            }
            return try Printer.string(value, interpreter)
        }
    }

    private var isPlain: Bool { width == 0 && precision == nil && kind == nil && alignment == nil }

    private func layOut(text: String, _ interpreter: Interpreter) throws -> String {
        guard kind == nil || kind == "s" || kind == "c" else { throw unknownKind("str") }
        guard alignment != "=" || fill == "0" else {
            throw TemplateError(.value, "'=' alignment not allowed in string format specifier")
        }
        let shown = precision.map { String(text.unicodeScalars.prefix($0)) } ?? text
        return try pad(sign: "", shown, alignment == "=" ? "<" : alignment ?? "<", interpreter)
    }

    private func unknownKind(_ type: String) -> TemplateError {
        TemplateError(.value, "Unknown format code '\(kind.map { String($0) } ?? "")' for object of type '\(type)'")
    }

    private func layOut(_ value: Int, _ digits: String, _ prefix: String, _ interpreter: Interpreter) throws -> String {
        guard precision == nil else { throw TemplateError(.value, "Precision not allowed in integer format specifier") }
        let sign = signText(isNegative: value < 0) + (isAlternate ? prefix : "")
        return try pad(sign: sign, grouped(digits, every: prefix.isEmpty ? 3 : 4), alignment ?? ">", interpreter)
    }

    private func signText(isNegative: Bool) -> String {
        if isNegative { return "-" }
        return sign == "-" ? "" : String(sign)
    }

    private func grouped(_ digits: String, every size: Int) -> String {
        guard let grouping else { return digits }
        var result = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % size == 0 { result.unicodeScalars.append(grouping) }
            result.append(digit)
        }
        return result
    }

    private func format(_ value: Double, isWhole: Bool, _ interpreter: Interpreter) throws -> String {
        if let precision { try interpreter.allocate(precision) }
        let isNegative = value.sign == .minus && !value.isNaN
        let magnitude = value.magnitude
        var digits: String
        if !value.isFinite {
            digits = value.isNaN ? "nan" : "inf"
            if kind == "%" { digits += "%" }
            if let kind, "EFG".unicodeScalars.contains(kind) { digits = digits.uppercased() }
        } else {
            switch kind {
            case nil where precision == nil: digits = Numbers.repr(magnitude)
            case nil:
                digits = PlatformMath.format("%.*g", precision: max(precision ?? 6, 1), magnitude)
                if !digits.contains("."), !digits.contains("e") { digits += ".0" }
            case "f", "F":
                digits = PlatformMath.format(isAlternate ? "%#.*f" : "%.*f", precision: precision ?? 6, magnitude)
            case "e": digits = PlatformMath.format(isAlternate ? "%#.*e" : "%.*e", precision: precision ?? 6, magnitude)
            case "E": digits = PlatformMath.format(isAlternate ? "%#.*E" : "%.*E", precision: precision ?? 6, magnitude)
            case "g", "n":
                digits = PlatformMath.format(
                    isAlternate ? "%#.*g" : "%.*g", precision: max(precision ?? 6, 1), magnitude)
            case "G":
                digits = PlatformMath.format(
                    isAlternate ? "%#.*G" : "%.*G", precision: max(precision ?? 6, 1), magnitude)
            case "%": digits = PlatformMath.format("%.*f", precision: precision ?? 6, magnitude * 100) + "%"
            default: throw unknownKind(isWhole ? "int" : "float")
            }
        }
        if grouping != nil, value.isFinite {
            let whole = digits.prefix { $0.isNumber }
            digits = grouped(String(whole), every: 3) + digits.dropFirst(whole.count)
        }
        return try pad(sign: signText(isNegative: isNegative), digits, alignment ?? ">", interpreter)
    }

    private func pad(
        sign: String, _ body: String, _ alignment: Unicode.Scalar, _ interpreter: Interpreter
    ) throws -> String {
        let missing = width - PythonText.count(sign) - PythonText.count(body)
        guard missing > 0 else { return sign + body }
        try interpreter.allocate(missing, times: UTF8.width(fill))
        func filling(_ count: Int) -> String { String(repeating: String(fill), count: count) }
        return switch alignment {
        case "<": sign + body + filling(missing)
        case "^": filling(missing / 2) + sign + body + filling(missing - missing / 2)
        case "=": sign + filling(missing) + body
        default: filling(missing) + sign + body
        }
    }
}
