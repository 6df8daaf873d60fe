extension TemplateValue {
    /// Reads one JSON text (RFC 8259): integers stay apart from doubles, keys keep their order, a repeated key takes
    /// its last value.
    /// - Throws: ``TemplateError`` with code `data` and the byte's place for text that is not JSON, integers past 64
    ///   bits, lone surrogates, and nesting beyond `depth`.
    public init(json bytes: some Sequence<UInt8>, depth: Int = 256) throws(TemplateError) {
        var reader = JSONReader(bytes: Array(bytes), depthLimit: depth)
        self = try reader.document()
    }

    public init(json text: String, depth: Int = 256) throws(TemplateError) {
        try self.init(json: text.utf8, depth: depth)
    }
}

private struct JSONReader {
    let bytes: [UInt8]
    let depthLimit: Int
    var position = 0

    init(bytes: [UInt8], depthLimit: Int) {
        self.bytes = bytes
        self.depthLimit = depthLimit
    }

    mutating func document() throws(TemplateError) -> TemplateValue {
        let value = try value(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw failure("something follows the value") }
        return value
    }

    func failure(_ message: String) -> TemplateError {
        TemplateError(.data, "JSON, byte \(position): \(message)")
    }

    var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    mutating func take(_ character: Unicode.Scalar) throws(TemplateError) {
        guard current == UInt8(ascii: character) else { throw failure("expected '\(character)'") }
        position += 1
    }

    mutating func takeWord(_ word: StaticString, _ value: TemplateValue) throws(TemplateError) -> TemplateValue {
        let end = position + word.utf8CodeUnitCount
        let expected = UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)
        guard end <= bytes.count, bytes[position..<end].elementsEqual(expected) else {
            throw failure("expected a value")
        }
        position = end
        return value
    }

    mutating func value(depth: Int) throws(TemplateError) -> TemplateValue {
        guard depth <= depthLimit else { throw failure("nested more than \(depthLimit) deep") }
        skipSpace()
        switch current {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try takeWord("true", .bool(true))
        case UInt8(ascii: "f"): return try takeWord("false", .bool(false))
        case UInt8(ascii: "n"): return try takeWord("null", .null)
        default: return try number()
        }
    }

    mutating func object(depth: Int) throws(TemplateError) -> TemplateValue {
        position += 1
        var object = TemplateObject()
        skipSpace()
        if current == UInt8(ascii: "}") {
            position += 1
            return .object(object)
        }
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else { throw failure("expected a key in double quotes") }
            let key = try string()
            skipSpace()
            try take(":")
            object[key] = try value(depth: depth + 1)
            skipSpace()
            if current == UInt8(ascii: "}") { break }
            try take(",")
        }
        position += 1
        return .object(object)
    }

    mutating func array(depth: Int) throws(TemplateError) -> TemplateValue {
        position += 1
        var elements: [TemplateValue] = []
        skipSpace()
        if current == UInt8(ascii: "]") {
            position += 1
            return .array(elements)
        }
        while true {
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if current == UInt8(ascii: "]") { break }
            try take(",")
        }
        position += 1
        return .array(elements)
    }

    mutating func number() throws(TemplateError) -> TemplateValue {
        let start = position
        var isInteger = true
        if current == UInt8(ascii: "-") { position += 1 }
        let firstDigit = position
        try digits()
        if bytes[firstDigit] == UInt8(ascii: "0"), position > firstDigit + 1 {
            position = firstDigit
            throw failure("a number may not start with 0")
        }
        if current == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            try digits()
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            isInteger = false
            position += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
            try digits()
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger {
            guard let integer = Int64(text) else { throw failure("integer \(text) does not fit 64 bits") }
            return .int(integer)
        }
        guard let double = Double(text) else { throw failure("number \(text) cannot be read") }
        return .double(double)
    }

    mutating func digits() throws(TemplateError) {
        let start = position
        while let byte = current, byte >= 0x30, byte <= 0x39 { position += 1 }
        guard position > start else { throw failure(start == bytes.count ? "ends too early" : "expected a value") }
    }

    mutating func string() throws(TemplateError) -> String {
        position += 1
        let start = position
        var text: [UInt8] = []
        var plainStart = start
        while let byte = current {
            if byte == UInt8(ascii: "\"") {
                text.append(contentsOf: bytes[plainStart..<position])
                guard let string = String(validating: text, as: UTF8.self) else {
                    throw failure("the string that ends here is not UTF-8")
                }
                position += 1
                return string
            }
            guard byte >= 0x20 else { throw failure("a control character in a string must be escaped") }
            if byte == UInt8(ascii: "\\") {
                text.append(contentsOf: bytes[plainStart..<position])
                position += 1
                text.append(contentsOf: String(try escape()).utf8)
                plainStart = position
            } else {
                position += 1
            }
        }
        throw failure("a string is not closed")
    }

    mutating func escape() throws(TemplateError) -> Unicode.Scalar {
        guard let byte = current else { throw failure("a string is not closed") }
        position += 1
        switch byte {
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if code >= 0xD800, code < 0xDC00, current == UInt8(ascii: "\\") {
                position += 1
                try take("u")
                let low = try hexadecimal()
                guard low >= 0xDC00, low < 0xE000 else { throw failure("a lone surrogate is not text") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("a lone surrogate is not text") }
            return scalar
        default: throw failure("unknown escape '\\\(Unicode.Scalar(byte))'")
        }
    }

    mutating func hexadecimal() throws(TemplateError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw failure("expected four hexadecimal digits")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }
}
