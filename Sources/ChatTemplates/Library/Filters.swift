/// A filter: what may follow `|`. The table; filters on sequences are in `SequenceFilters.swift`, on text in
/// `TextFilters.swift`.
struct Filter: Sendable {
    typealias Body = @Sendable (Interpreter, Value, BoundArguments) throws -> Value

    let apply: @Sendable (Interpreter, Value, Arguments) throws -> Value

    /// Those that compare or hash what they are given whole.
    static let comparing: Set<String> = ["unique", "sort", "dictsort", "groupby", "min", "max"]

    static func named(_ name: String) -> Filter? { table[name] }

    /// A filter with named parameters, of which the first `required` must be given.
    init(_ name: String, _ parameters: [String] = [], required: Int = 0, _ body: @escaping Body) {
        let parameters = Parameters(function: name, names: parameters, required: required)
        apply = { interpreter, value, arguments in try body(interpreter, value, try parameters.bind(arguments)) }
    }

    /// A filter that reads its arguments itself.
    init(raw: @escaping @Sendable (Interpreter, Value, Arguments) throws -> Value) { apply = raw }

    private static let table: [String: Filter] = {
        var table = SequenceFilters.table.merging(TextFilters.table) { first, _ in first }
        table.merge(general) { first, _ in first }
        for (alias, name) in [("count", "length"), ("d", "default"), ("e", "escape")] { table[alias] = table[name] }
        return table
    }()

    private static let general: [String: Filter] = [
        "default": Filter("default", ["default_value", "boolean"]) { _, value, arguments in
            let isMissing = value.isUndefined || (arguments.flag(1) && !value.isTruthy)
            return isMissing ? arguments[0] ?? .string("") : value
        },
        "attr": Filter("attr", ["name"], required: 1) { interpreter, value, arguments in
            let name = try arguments.text(0)
            if case .undefined(let missing) = value { throw missing.error }
            return try interpreter.ownAttribute(name, of: value)
                ?? .undefined(Undefined(.attribute(owner: value.ownerName, name: name)))
        },
        "abs": Filter("abs") { interpreter, value, _ in
            switch value {
            case .double(let number): return .double(number.magnitude)
            default:
                guard let integer = value.integer else {
                    throw TemplateError(.type, "bad operand type for abs(): '\(value.typeName)'")
                }
                return integer < 0 ? try interpreter.negate(.int(integer)) : .int(integer)
            }
        },
        "int": Filter("int", ["default", "base"]) { _, value, arguments in
            let fallback = arguments[0] ?? .int(0)
            switch value {
            case .undefined(let missing): throw missing.error
            case .int, .bool: return .int(value.integer ?? 0)
            case .double(let number):
                return Int(exactly: number.rounded(.towardZero)).map(Value.int) ?? fallback
            case .string(let text), .markup(let text):
                if let integer = Numbers.integer(text, base: try arguments.integer(1, default: 10)) {
                    return .int(integer)
                }
                let number = Numbers.double(text).flatMap { Int(exactly: $0.rounded(.towardZero)) }
                return number.map(Value.int) ?? fallback
            default: return fallback
            }
        },
        "float": Filter("float", ["default"]) { _, value, arguments in
            if case .undefined(let missing) = value { throw missing.error }
            let number = value.number ?? value.text.flatMap(Numbers.double)
            return number.map(Value.double) ?? arguments[0] ?? .double(0)
        },
        "round": Filter("round", ["precision", "method"]) { interpreter, value, arguments in
            try round(interpreter, value, arguments)
        },
        "string": Filter("string") { interpreter, value, _ in
            if value.text != nil { return value }
            return try interpreter.string(try Printer.string(value, interpreter))
        },
        "safe": Filter("safe") { interpreter, value, _ in .markup(try Printer.string(value, interpreter)) },
        "pprint": Filter("pprint") { interpreter, value, _ in
            try interpreter.string(try Printer.repr(value, interpreter))
        },
        "tojson": Filter("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"]) {
            try toJSON($0, $1, $2)
        },
        "filesizeformat": Filter("filesizeformat", ["binary"]) { interpreter, value, arguments in
            if case .undefined(let missing) = value { throw missing.error }
            guard let bytes = value.number ?? value.text.flatMap(Numbers.double) else {
                throw TemplateError(.type, "a file size must be a number, not \(value.typeName)")
            }
            return .string(fileSize(bytes, isBinary: arguments.flag(0)))
        },
    ]

    private static func round(_ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments) throws -> Value {
        let precision = try arguments.integer(0, default: 0)
        let method = try arguments[1].map { _ in try arguments.text(1) } ?? "common"
        guard ["common", "ceil", "floor"].contains(method) else {
            throw TemplateError(.value, "method must be common, ceil or floor")
        }
        if case .undefined(let missing) = value, method != "common" { throw missing.error }
        guard let number = value.number else {
            throw TemplateError(.type, "type \(value.typeName) doesn't define __round__ method")
        }
        if method == "common" {
            if let integer = value.integer {
                if precision >= 0 { return .int(integer) }
                guard precision > -19 else { return .int(0) }
                var scale = 1
                for _ in 0..<(-precision) { scale *= 10 }
                let remainder = ((integer % scale) + scale) % scale
                let (down, isTooSmall) = integer.subtractingReportingOverflow(remainder)
                // Below the least integer there is only the one multiple above it left to round to.
                let isUp =
                    remainder * 2 > scale
                    || (remainder * 2 == scale && (integer / scale - (integer < 0 ? 1 : 0)) % 2 != 0)
                let (result, isTooLarge) = isUp ? down.addingReportingOverflow(scale) : (down, false)
                guard isTooSmall == isTooLarge else {
                    throw TemplateError(.value, "\(integer) rounded to \(precision) places does not fit 64 bits")
                }
                return .int(result)
            }
            return .double(Numbers.round(number, places: precision))
        }
        let scale = try PlatformMath.power(10, Double(precision))
        let scaled = number * scale
        guard scaled.isFinite else { throw TemplateError(.value, "cannot round \(number) to an integer") }
        return .double(scaled.rounded(method == "ceil" ? .up : .down) / scale)
    }

    private static func toJSON(_ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments) throws -> Value
    {
        var indent: String?
        if let given = arguments[1], !given.isNone {
            if let text = given.text {
                indent = text
            } else {
                let width = try arguments.integer(1, default: 0)
                try interpreter.allocate(max(0, width))
                indent = String(repeating: " ", count: max(0, width))
            }
        }
        var writer = JSONWriter(indent: indent, interpreter: interpreter)
        writer.ensuresASCII = arguments.flag(0)
        writer.sortsKeys = arguments.flag(3)
        if let separators = arguments[2], !separators.isNone {
            let pair = try interpreter.elements(of: separators)
            guard pair.count == 2, let item = pair[0].text, let key = pair[1].text else {
                throw TemplateError(.type, "separators must be a pair of strings")
            }
            writer.itemSeparator = item
            writer.keySeparator = key
        }
        return try interpreter.string(try writer.write(value))
    }

    private static func fileSize(_ bytes: Double, isBinary: Bool) -> String {
        let base: Double = isBinary ? 1024 : 1000
        if bytes == 1 { return "1 Byte" }
        if bytes < base {
            return PlatformMath.format("%.*f", precision: 0, bytes.rounded(.towardZero) + 0) + " Bytes"
        }
        var unit = base
        for prefix in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
            if bytes < unit * base || prefix == "Y" {
                let number = PlatformMath.format("%.*f", precision: 1, base * bytes / (unit * base))
                return "\(number) \(isBinary ? prefix.uppercased() + "i" : prefix)B"
            }
            unit *= base
        }
        return ""
    }
}
