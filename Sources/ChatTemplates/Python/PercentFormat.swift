/// Python's `text % values`.
enum PercentFormat {
    static func format(_ format: String, _ values: Value, _ interpreter: Interpreter) throws -> String {
        var formatter = Formatter(values: values, interpreter: interpreter)
        return try formatter.run(format)
    }

    private struct Formatter {
        let interpreter: Interpreter
        let single: Value
        var queue: [Value]
        var position = 0
        var usesKeys = false

        init(values: Value, interpreter: Interpreter) {
            self.interpreter = interpreter
            single = values
            if case .tuple(let elements) = values { queue = elements.items } else { queue = [values] }
        }

        mutating func next() throws -> Value {
            guard position < queue.count else {
                throw TemplateError(.type, "not enough arguments for format string")
            }
            position += 1
            return queue[position - 1]
        }

        mutating func run(_ format: String) throws -> String {
            var result = String.UnicodeScalarView()
            var rest = Array(format.unicodeScalars)[...]
            while let scalar = rest.popFirst() {
                guard scalar == "%" else {
                    result.append(scalar)
                    continue
                }
                result.append(contentsOf: try directive(&rest).unicodeScalars)
                if result.count > interpreter.limits.outputBytes { throw Budget.tooLong(interpreter.limits) }
            }
            let isMapping = if case .dictionary = single { true } else { false }
            if position < queue.count, !usesKeys, !isMapping {
                throw TemplateError(.type, "not all arguments converted during string formatting")
            }
            return String(result)
        }

        private mutating func directive(_ rest: inout ArraySlice<Unicode.Scalar>) throws -> String {
            var named: Value?
            if rest.first == "(" {
                guard let end = rest.firstIndex(of: ")") else { throw TemplateError(.value, "incomplete format key") }
                let key = String(String.UnicodeScalarView(rest[(rest.startIndex + 1)..<end]))
                rest = rest[(end + 1)...]
                guard case .dictionary(let mapping) = single else {
                    throw TemplateError(.type, "format requires a mapping")
                }
                guard let value = mapping[key] else { throw TemplateError(.lookup, "'\(key)'") }
                named = value
                usesKeys = true
            }
            var specification = FormatSpecification()
            specification.alignment = ">"
            try readFlags(&rest, &specification)
            while let first = rest.first, "hlL".unicodeScalars.contains(first) { rest.removeFirst() }
            guard let kind = rest.popFirst() else { throw TemplateError(.value, "incomplete format") }
            if kind == "%" { return "%" }
            let value = try named ?? next()
            return try convert(value, kind, specification)
        }

        private mutating func readFlags(
            _ rest: inout ArraySlice<Unicode.Scalar>, _ specification: inout FormatSpecification
        ) throws {
            var isLeft = false
            while let flag = rest.first, "#0- +".unicodeScalars.contains(flag) {
                rest.removeFirst()
                switch flag {
                case "-": isLeft = true
                case "0": specification.fill = "0"
                case "#": specification.isAlternate = true
                case "+": specification.sign = "+"
                default: if specification.sign != "+" { specification.sign = " " }
                }
            }
            if rest.first == "*" {
                rest.removeFirst()
                let width = try starred()
                if width < 0 { isLeft = true }
                specification.width = Int(clamping: width.magnitude)
            } else {
                specification.width = try FormatSpecification.number(&rest) ?? 0
            }
            if rest.first == "." {
                rest.removeFirst()
                if rest.first == "*" {
                    rest.removeFirst()
                    specification.precision = max(0, try starred())
                } else {
                    specification.precision = try FormatSpecification.number(&rest) ?? 0
                }
            }
            if isLeft {
                specification.alignment = "<"
                specification.fill = " "
            } else if specification.fill == "0" {
                specification.alignment = "="
            }
        }

        private mutating func starred() throws -> Int {
            guard let value = try next().integer else { throw TemplateError(.type, "* wants int") }
            return value
        }

        private func convert(
            _ value: Value, _ kind: Unicode.Scalar, _ specification: FormatSpecification
        ) throws -> String {
            var specification = specification
            switch kind {
            case "s", "r", "a":
                var text =
                    kind == "s" ? try Printer.string(value, interpreter) : try Printer.repr(value, interpreter)
                if kind == "a" {
                    text = text.unicodeScalars.map { $0.isASCII ? String($0) : PythonText.backslashEscape($0) }.joined()
                }
                return try layOut(text, specification)
            case "c":
                if let text = value.text, PythonText.count(text) == 1 { return try layOut(text, specification) }
                guard let code = value.integer, let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else {
                    throw TemplateError(.type, "%c requires int or char")
                }
                return try layOut(String(scalar), specification)
            case "d", "i", "u": return try integer(value, "d", specification)
            case "x", "X", "o": return try integer(value, kind, specification)
            case "e", "E", "f", "F", "g", "G":
                if case .undefined(let missing) = value { throw missing.error }
                guard let number = value.number else {
                    throw TemplateError(.type, "must be real number, not \(value.typeName)")
                }
                specification.kind = kind
                return try specification.format(.double(number), interpreter)
            default:
                throw TemplateError(.value, "unsupported format character '\(kind)'")
            }
        }

        private func layOut(_ text: String, _ specification: FormatSpecification) throws -> String {
            var specification = specification
            if specification.alignment == "=" {
                specification.alignment = ">"
                specification.fill = " "
            }
            return try specification.format(.string(text), interpreter)
        }

        private func integer(
            _ value: Value, _ kind: Unicode.Scalar, _ specification: FormatSpecification
        ) throws -> String {
            if case .undefined(let missing) = value { throw missing.error }
            var integer = value.integer
            if kind == "d", case .double(let number) = value { integer = Int(exactly: number.rounded(.towardZero)) }
            guard let integer else {
                throw TemplateError(
                    .type,
                    "%\(kind) format: \(kind == "d" ? "a real number" : "an integer") is required, not \(value.typeName)"
                )
            }
            var specification = specification
            specification.kind = kind
            if let precision = specification.precision {
                // The precision of an integer is its least number of digits.
                var digits = FormatSpecification()
                digits.kind = kind
                digits.width = precision
                digits.fill = "0"
                digits.alignment = "="
                let body = try digits.format(.int(Int(clamping: integer.magnitude)), interpreter)
                let sign = integer < 0 ? "-" : specification.sign == "-" ? "" : String(specification.sign)
                specification.precision = nil
                specification.kind = nil
                return try layOut(sign + body, specification)
            }
            return try specification.format(.int(integer), interpreter)
        }
    }
}
