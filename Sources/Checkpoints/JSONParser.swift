internal import OrderedCollections

/// Reads JSON from untrusted bytes: bounded depth, no recursion on input length, no traps.
///
/// Python's `NaN`, `Infinity` and `-Infinity` are read, since `json.dump` writes them into `config.json`.
struct JSONParser {
    /// What is wrong, and where.
    struct Failure: Error {
        let offset: Int
        let message: String
    }

    private let bytes: UnsafeRawBufferPointer
    private let rejectsDuplicates: Bool
    private var position = 0
    private static let depthLimit = 64

    private init(_ bytes: UnsafeRawBufferPointer, rejectsDuplicates: Bool) {
        self.bytes = bytes
        self.rejectsDuplicates = rejectsDuplicates
    }

    /// The one value in `bytes`, white space around it allowed. A repeated key's last value wins unless
    /// `rejectsDuplicates`.
    static func parse(_ bytes: UnsafeRawBufferPointer, rejectsDuplicates: Bool = false) throws(Failure) -> JSONValue {
        var parser = JSONParser(bytes, rejectsDuplicates: rejectsDuplicates)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.position == bytes.count else { throw parser.failure("text after the end of the value") }
        return value
    }

    /// Parses a whole file, naming it in the error.
    static func parse(
        _ bytes: UnsafeRawBufferPointer, from place: String, rejectsDuplicates: Bool = false
    ) throws(CheckpointError) -> JSONValue {
        do {
            return try parse(bytes, rejectsDuplicates: rejectsDuplicates)
        } catch {
            throw CheckpointError(.malformed, place, "bad JSON at byte \(error.offset): \(error.message)")
        }
    }

    private func failure(_ message: String) -> Failure { Failure(offset: position, message: message) }

    private mutating func skipSpace() {
        while let byte = peek(), byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func accept(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        position += 1
        return true
    }

    private mutating func accept(word: StaticString) -> Bool {
        let length = word.utf8CodeUnitCount
        guard bytes.count - position >= length else { return false }
        let expected = UnsafeRawBufferPointer(start: word.utf8Start, count: length)
        guard bytes[position..<(position + length)].elementsEqual(expected) else { return false }
        position += length
        return true
    }

    private mutating func value(depth: Int) throws(Failure) -> JSONValue {
        guard depth < Self.depthLimit else { throw failure("nested deeper than \(Self.depthLimit)") }
        skipSpace()
        switch peek() {
        case nil: throw failure("the text ends where a value should be")
        case UInt8(ascii: "{"): return .object(try object(depth: depth))
        case UInt8(ascii: "["): return .array(try array(depth: depth))
        case UInt8(ascii: "\""): return .string(try string())
        default: break
        }
        if accept(word: "true") { return .bool(true) }
        if accept(word: "false") { return .bool(false) }
        if accept(word: "null") { return .null }
        if accept(word: "NaN") { return .double(.nan) }
        if accept(word: "Infinity") { return .double(.infinity) }
        if accept(word: "-Infinity") { return .double(-.infinity) }
        return try number()
    }

    private mutating func object(depth: Int) throws(Failure) -> JSONObject {
        position += 1
        var entries = JSONObject()
        skipSpace()
        if accept(UInt8(ascii: "}")) { return entries }
        while true {
            skipSpace()
            guard peek() == UInt8(ascii: "\"") else { throw failure("expected a key in quotes") }
            let key = try string()
            skipSpace()
            guard accept(UInt8(ascii: ":")) else { throw failure("expected ':' after key '\(key)'") }
            let value = try value(depth: depth + 1)
            if entries.updateValue(value, forKey: key) != nil, rejectsDuplicates {
                throw failure("the key '\(key)' appears twice")
            }
            skipSpace()
            if accept(UInt8(ascii: "}")) { return entries }
            guard accept(UInt8(ascii: ",")) else { throw failure("expected ',' or '}'") }
        }
    }

    private mutating func array(depth: Int) throws(Failure) -> [JSONValue] {
        position += 1
        var values: [JSONValue] = []
        skipSpace()
        if accept(UInt8(ascii: "]")) { return values }
        while true {
            values.append(try value(depth: depth + 1))
            skipSpace()
            if accept(UInt8(ascii: "]")) { return values }
            guard accept(UInt8(ascii: ",")) else { throw failure("expected ',' or ']'") }
        }
    }

    private mutating func number() throws(Failure) -> JSONValue {
        let start = position
        var isInteger = true
        scan: while let byte = peek() {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"): break
            case UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E"), UInt8(ascii: "+"): isInteger = false
            default: break scan
            }
            position += 1
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int(text) { return .int(value) }
        // Double accepts what Swift prints, which is wider than JSON only in hexadecimal and names, not scanned here.
        guard !text.hasPrefix("+"), let value = Double(text) else {
            position = start
            throw failure(text.isEmpty ? "unexpected character" : "'\(text)' is not a number")
        }
        return .double(value)
    }

    private mutating func string() throws(Failure) -> String {
        position += 1
        let start = position
        while let byte = peek(), byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
        if peek() == UInt8(ascii: "\"") {
            defer { position += 1 }
            return try utf8([UInt8](bytes[start..<position]))
        }
        var decoded = [UInt8](bytes[start..<position])
        while let byte = peek() {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return try utf8(decoded)
            case UInt8(ascii: "\\"): try escape(into: &decoded)
            case 0..<0x20: throw failure("a control character in a string")
            default: decoded.append(byte)
            }
        }
        throw failure("the text ends inside a string")
    }

    private func utf8(_ text: [UInt8]) throws(Failure) -> String {
        guard let text = String(validating: text, as: UTF8.self) else { throw failure("a string is not UTF-8") }
        return text
    }

    private mutating func escape(into decoded: inout [UInt8]) throws(Failure) {
        guard let byte = peek() else { throw failure("the text ends inside an escape") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): decoded.append(byte)
        case UInt8(ascii: "b"): decoded.append(0x08)
        case UInt8(ascii: "f"): decoded.append(0x0C)
        case UInt8(ascii: "n"): decoded.append(0x0A)
        case UInt8(ascii: "r"): decoded.append(0x0D)
        case UInt8(ascii: "t"): decoded.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hex()
            if code >= 0xD800, code < 0xDC00, accept(word: "\\u") {
                let low = try hex()
                guard low >= 0xDC00, low < 0xE000 else { throw failure("half of a surrogate pair") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("half of a surrogate pair") }
            decoded.append(contentsOf: UTF8.encode(scalar)!)
        default: throw failure("an unknown escape")
        }
    }

    private mutating func hex() throws(Failure) -> UInt32 {
        guard bytes.count - position >= 4 else { throw failure("the text ends inside an escape") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
                throw failure("a bad \\u escape")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }
}
