/// Python's `str.format`, with attribute and element access by the sandbox's rules.
enum BraceFormat {
    static func format(_ format: String, _ arguments: Arguments, _ interpreter: Interpreter) throws -> String {
        var formatter = Formatter(arguments: arguments, interpreter: interpreter)
        return try formatter.run(Array(format.unicodeScalars)[...], level: 0)
    }

    private struct Formatter {
        let arguments: Arguments
        let interpreter: Interpreter
        var nextIndex: Int? = 0

        mutating func run(_ format: ArraySlice<Unicode.Scalar>, level: Int) throws -> String {
            guard level <= 2 else { throw TemplateError(.value, "Max string recursion exceeded") }
            var result = String.UnicodeScalarView()
            var rest = format
            while let scalar = rest.popFirst() {
                if scalar == "}" {
                    guard rest.first == "}" else {
                        throw TemplateError(.value, "Single '}' encountered in format string")
                    }
                    rest.removeFirst()
                    result.append(scalar)
                } else if scalar == "{" {
                    if rest.first == "{" {
                        rest.removeFirst()
                        result.append(scalar)
                    } else {
                        result.append(contentsOf: try field(&rest, level: level).unicodeScalars)
                    }
                } else {
                    result.append(scalar)
                }
                if result.count > interpreter.limits.outputBytes { throw Budget.tooLong(interpreter.limits) }
            }
            return String(result)
        }

        private mutating func field(_ rest: inout ArraySlice<Unicode.Scalar>, level: Int) throws -> String {
            var depth = 1
            var end = rest.startIndex
            while end < rest.endIndex {
                if rest[end] == "{" { depth += 1 }
                if rest[end] == "}" { depth -= 1 }
                if depth == 0 { break }
                end += 1
            }
            guard depth == 0 else { throw TemplateError(.value, "expected '}' before end of string") }
            let field = rest[..<end]
            rest = rest[(end + 1)...]
            // The name ends at the first ! or : that is not inside brackets.
            var nameEnd = field.startIndex
            var isInBrackets = false
            while nameEnd < field.endIndex {
                if field[nameEnd] == "[" { isInBrackets = true }
                if field[nameEnd] == "]" { isInBrackets = false }
                if !isInBrackets, field[nameEnd] == "!" || field[nameEnd] == ":" { break }
                nameEnd += 1
            }
            var value = try value(named: field[..<nameEnd])
            var tail = field[nameEnd...]
            if tail.first == "!" {
                tail.removeFirst()
                guard let conversion = tail.popFirst(), tail.isEmpty || tail.first == ":" else {
                    throw TemplateError(.value, "expected ':' after conversion specifier")
                }
                value = .string(try convert(value, conversion))
            }
            if tail.first == ":" { tail.removeFirst() }
            let specification = try FormatSpecification.parse(try run(tail, level: level + 1))
            return try specification.format(value, interpreter)
        }

        private func convert(_ value: Value, _ conversion: Unicode.Scalar) throws -> String {
            switch conversion {
            case "s": return try Printer.string(value, interpreter)
            case "r": return try Printer.repr(value, interpreter)
            case "a":
                let text = try Printer.repr(value, interpreter)
                return text.unicodeScalars.map { $0.isASCII ? String($0) : PythonText.backslashEscape($0) }.joined()
            default: throw TemplateError(.value, "Unknown conversion specifier '\(conversion)'")
            }
        }

        private mutating func value(named name: ArraySlice<Unicode.Scalar>) throws -> Value {
            let end = name.firstIndex { $0 == "." || $0 == "[" } ?? name.endIndex
            var value = try argument(String(String.UnicodeScalarView(name[..<end])))
            var rest = name[end...]
            while let opening = rest.popFirst() {
                if opening == "." {
                    let end = rest.firstIndex { $0 == "." || $0 == "[" } ?? rest.endIndex
                    let attribute = String(String.UnicodeScalarView(rest[..<end]))
                    guard !attribute.isEmpty else { throw TemplateError(.value, "Empty attribute in format string") }
                    value = try interpreter.attribute(attribute, of: value)
                    rest = rest[end...]
                } else {
                    guard opening == "[", let end = rest.firstIndex(of: "]"), end > rest.startIndex else {
                        throw TemplateError(.value, "Missing ']' in format string")
                    }
                    let key = String(String.UnicodeScalarView(rest[..<end]))
                    value = try interpreter.item(Int(key).map(Value.int) ?? .string(key), of: value)
                    rest = rest[(end + 1)...]
                }
            }
            return value
        }

        private mutating func argument(_ name: String) throws -> Value {
            var index = Int(name)
            if name.isEmpty {
                guard let next = nextIndex else {
                    throw TemplateError(
                        .value, "cannot switch from manual field specification to automatic field numbering")
                }
                index = next
                nextIndex = next + 1
            } else if index != nil {
                if let next = nextIndex, next > 0 {
                    throw TemplateError(
                        .value, "cannot switch from automatic field numbering to manual field specification")
                }
                nextIndex = nil
            }
            if let index {
                guard arguments.positional.indices.contains(index) else {
                    throw TemplateError(
                        .lookup, "Replacement index \(index) out of range for positional args tuple")
                }
                return arguments.positional[index]
            }
            guard let keyword = arguments.keywords.first(where: { $0.name == name }) else {
                throw TemplateError(.lookup, "'\(name)'")
            }
            return keyword.value
        }
    }
}
