import OrderedCollections

/// Python's `str` and `repr`.
enum Printer {
    static func string(_ value: Value, _ interpreter: Interpreter) throws -> String {
        if let text = value.text { return text }
        var result = ""
        try write(value, to: &result, interpreter)
        return result
    }

    static func repr(_ value: Value, _ interpreter: Interpreter) throws -> String {
        var result = ""
        try writeRepr(value, to: &result, interpreter)
        return result
    }

    /// Appends `str(value)`.
    static func write(_ value: Value, to text: inout String, _ interpreter: Interpreter) throws {
        switch value {
        case .string(let part), .markup(let part): text += part
        case .undefined: break
        default: try writeRepr(value, to: &text, interpreter)
        }
    }

    private static func writeRepr(_ value: Value, to text: inout String, _ interpreter: Interpreter) throws {
        try interpreter.step()
        if text.utf8.count > interpreter.limits.outputBytes { throw Budget.tooLong(interpreter.limits) }
        switch value {
        case .undefined: text += "Undefined"
        case .none: text += "None"
        case .bool(let value): text += value ? "True" : "False"
        case .int(let value): text += String(value)
        case .double(let value): text += Numbers.repr(value)
        case .string(let part): text += PythonText.repr(part)
        case .markup(let part): text += "Markup(\(PythonText.repr(part)))"
        case .bytes(let bytes): text += repr(bytes)
        case .list(let elements): try writeList(elements.items, "[", "]", to: &text, interpreter)
        case .tuple(let elements):
            try writeList(elements.items, "(", elements.items.count == 1 ? ",)" : ")", to: &text, interpreter)
        case .dictionary(let mapping): try writeMapping(mapping, to: &text, interpreter)
        case .range(let range):
            text += "range(\(range.start), \(range.stop)\(range.step == 1 ? "" : ", \(range.step)"))"
        case .view(let view):
            text += view.kind.rawValue
            try writeList(view.values, "([", "])", to: &text, interpreter)
        case .iterator(let iterator): text += "<\(iterator.typeName) object>"
        case .callable(let callable): text += "<\(callable.typeName) \(callable.name)>"
        case .object(let namespace as Namespace): try writeNamespace(namespace, to: &text, interpreter)
        case .object(let object): text += try object.shown(interpreter)
        }
    }

    private static func writeList(
        _ items: [Value], _ open: String, _ close: String, to text: inout String, _ interpreter: Interpreter
    ) throws {
        try interpreter.enter()
        defer { interpreter.leave() }
        text += open
        var isFirst = true
        for item in items {
            if !isFirst { text += ", " }
            isFirst = false
            try writeRepr(item, to: &text, interpreter)
        }
        text += close
    }

    private static func writeMapping(_ mapping: Mapping, to text: inout String, _ interpreter: Interpreter) throws {
        try interpreter.enter()
        defer { interpreter.leave() }
        text += "{"
        var isFirst = true
        for (key, value) in mapping.entries {
            if !isFirst { text += ", " }
            isFirst = false
            try writeRepr(key.value, to: &text, interpreter)
            text += ": "
            try writeRepr(value, to: &text, interpreter)
        }
        text += "}"
    }

    private static func writeNamespace(_ namespace: Namespace, to text: inout String, _ interpreter: Interpreter) throws
    {
        try interpreter.enter()
        defer { interpreter.leave() }
        text += "<Namespace {"
        var isFirst = true
        for (name, value) in namespace.attributes {
            if !isFirst { text += ", " }
            isFirst = false
            text += PythonText.repr(name.text) + ": "
            try writeRepr(value, to: &text, interpreter)
        }
        text += "}>"
    }

    private static func repr(_ bytes: [UInt8]) -> String {
        let quote: Unicode.Scalar = bytes.contains(0x27) && !bytes.contains(0x22) ? "\"" : "'"
        var result = "b" + String(quote)
        for byte in bytes {
            let scalar = Unicode.Scalar(byte)
            switch scalar {
            case quote, "\\": result += "\\" + String(scalar)
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case " "..."~": result.unicodeScalars.append(scalar)
            default: result += PythonText.backslashEscape(scalar)
            }
        }
        return result + String(quote)
    }
}
