/// One value of a `JSONDocument`, with the typed access that a reader of configurations needs.
struct JSONNode {
    let document: JSONDocument
    let index: Int

    var kind: JSONDocument.Kind { document.entries[index].kind }
    var count: Int { Int(document.entries[index].count) }
    var isNull: Bool { kind == .null }
    var isObject: Bool { kind == .object }
    var isArray: Bool { kind == .array }

    var string: String? {
        guard let bytes = stringBytes else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }

    var stringBytes: [UInt8]? {
        guard kind == .string || kind == .escapedString else { return nil }
        var bytes: [UInt8] = []
        guard (try? document.appendString(at: index, to: &bytes)) != nil else { return nil }
        return bytes
    }

    var bool: Bool? {
        switch kind {
        case .yes: true
        case .no: false
        default: nil
        }
    }

    var int: Int? {
        guard kind == .number else { return nil }
        let entry = document.entries[index]
        var value = 0
        var isNegative = false
        for position in Int(entry.start)..<Int(entry.end) {
            let byte = document.bytes[position]
            if byte == 0x2D, position == Int(entry.start) {
                isNegative = true
                continue
            }
            guard (0x30...0x39).contains(byte), value < 1 << 56 else { return nil }
            value = value * 10 + Int(byte - 0x30)
        }
        return isNegative ? -value : value
    }

    /// The number by way of a 64-bit whole number and a power of ten, as Rust's JSON library reads it: it may be off by
    /// the last bit, and ties between segmentations depend on that bit.
    var double: Double? {
        guard kind == .number else { return nil }
        let entry = document.entries[index]
        let text = document.bytes[Int(entry.start)..<Int(entry.end)]
        guard Double(String(decoding: text, as: UTF8.self)) != nil else { return nil }
        var significand: UInt64 = 0
        var exponent = 0
        var isAfterPoint = false
        var isFull = false
        var position = text.first == 0x2D ? text.startIndex + 1 : text.startIndex
        digits: while position < text.endIndex {
            switch text[position] {
            case 0x2E: isAfterPoint = true
            case 0x30...0x39:
                let (product, overflows) = significand.multipliedReportingOverflow(by: 10)
                let (sum, carries) = product.addingReportingOverflow(UInt64(text[position] - 0x30))
                if isFull || overflows || carries {
                    // Further digits do not count, but for the size of a whole number.
                    isFull = true
                    if !isAfterPoint { exponent += 1 }
                } else {
                    significand = sum
                    if isAfterPoint { exponent -= 1 }
                }
            default: break digits
            }
            position += 1
        }
        if position < text.endIndex {
            let written = Int(String(decoding: text[(position + 1)...], as: UTF8.self)) ?? 0
            exponent += max(-100_000, min(100_000, written))
        }
        var value = Double(significand)
        while exponent < -308, value != 0 {
            value /= 1e308
            exponent += 308
        }
        if value != 0 {
            guard exponent <= 308 else { return nil }
            let power = Double("1e\(abs(exponent))") ?? 1
            value = exponent >= 0 ? value * power : value / power
        }
        return text.first == 0x2D ? -value : value
    }

    /// The member of that name; the last one where a name stands twice, as a hash map would keep it.
    subscript(name: StaticString) -> JSONNode? {
        guard kind == .object else { return nil }
        var found: JSONNode?
        forEachMember { key, value in
            let entry = document.entries[key]
            let length = Int(entry.end - entry.start)
            guard entry.kind == .string, length == name.utf8CodeUnitCount else { return }
            let start = Int(entry.start)
            if (0..<length).allSatisfy({ document.bytes[start + $0] == name.utf8Start[$0] }) {
                found = JSONNode(document: document, index: value)
            }
        }
        return found
    }

    /// The member of that name unless it is absent or null.
    func present(_ name: StaticString) -> JSONNode? {
        guard let node = self[name], !node.isNull else { return nil }
        return node
    }

    /// Calls with the entries of each member's name and value.
    func forEachMember(_ body: (_ key: Int, _ value: Int) throws -> Void) rethrows {
        guard kind == .object else { return }
        let end = document.next(after: index)
        var position = index + 1
        while position < end {
            try body(position, position + 1)
            position = document.next(after: position + 1)
        }
    }

    var elements: [JSONNode] {
        guard kind == .array else { return [] }
        var nodes: [JSONNode] = []
        nodes.reserveCapacity(count)
        forEachElement { nodes.append(JSONNode(document: document, index: $0)) }
        return nodes
    }

    func forEachElement(_ body: (_ entry: Int) throws -> Void) rethrows {
        guard kind == .array else { return }
        let end = document.next(after: index)
        var position = index + 1
        while position < end {
            try body(position)
            position = document.next(after: position)
        }
    }
}

/// Reads required and optional fields; each failure names the place and the remedy.
struct FieldReader {
    let node: JSONNode
    let place: String

    init(_ node: JSONNode, at place: String) throws {
        guard node.isObject else { throw TokenizerError(.invalidField, "\(place): expected an object") }
        self.node = node
        self.place = place
    }

    func failure(_ name: StaticString, _ expected: String) -> TokenizerError {
        TokenizerError(.invalidField, "\(place).\(name): expected \(expected)")
    }

    func string(_ name: StaticString) throws -> String {
        guard let value = node[name]?.string else { throw failure(name, "a string") }
        return value
    }

    func optionalString(_ name: StaticString) throws -> String? {
        guard let field = node.present(name) else { return nil }
        guard let value = field.string else { throw failure(name, "a string or null") }
        return value
    }

    /// A short string that is put before or after symbols, each time they are looked up.
    func affix(_ name: StaticString) throws -> String? {
        let text = try optionalString(name)
        guard (text?.utf8.count ?? 0) <= 256 else { throw failure(name, "at most 256 bytes") }
        return text
    }

    func bool(_ name: StaticString, default fallback: Bool? = nil) throws -> Bool {
        guard let field = node.present(name) else {
            if let fallback { return fallback }
            throw failure(name, "true or false")
        }
        guard let value = field.bool else { throw failure(name, "true or false") }
        return value
    }

    func count(_ name: StaticString, default fallback: Int? = nil) throws -> Int {
        guard let field = node.present(name) else {
            if let fallback { return fallback }
            throw failure(name, "a number, 0 or more")
        }
        guard let value = field.int, value >= 0 else { throw failure(name, "a number, 0 or more") }
        return value
    }

    func array(_ name: StaticString) throws -> [JSONNode] {
        guard let field = node[name], field.isArray else { throw failure(name, "an array") }
        return field.elements
    }

    /// A string of exactly one scalar.
    func scalar(_ name: StaticString) throws -> UnicodeScalar {
        let scalars = try string(name).unicodeScalars
        guard scalars.count == 1, let first = scalars.first else { throw failure(name, "one character") }
        return first
    }
}
