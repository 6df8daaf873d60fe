import OrderedCollections

/// A strict JSON parser (RFC 8259) over UTF-8 bytes: no comments, no trailing commas, no repeated keys, and a limit to
/// nesting, since the files may come from a stranger.
struct JSONParser {
    struct Failure: Error {
        let offset: Int
        let problem: String
    }

    private static let deepest = 128
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    /// Parses the whole slice as one value.
    static func parse(_ bytes: ArraySlice<UInt8>) throws(Failure) -> JSONValue {
        var parser = JSONParser(bytes)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        if parser.position < bytes.endIndex { throw parser.failure("something follows the value") }
        return value
    }

    private init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    private func failure(_ problem: String) -> Failure {
        Failure(offset: position - bytes.startIndex, problem: problem)
    }

    private var next: UInt8? { position < bytes.endIndex ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private mutating func take(_ byte: Unicode.Scalar) -> Bool {
        guard next == UInt8(ascii: byte) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ byte: Unicode.Scalar) throws(Failure) {
        if !take(byte) { throw failure("expected '\(byte)'") }
    }

    private mutating func value(depth: Int) throws(Failure) -> JSONValue {
        if depth > Self.deepest { throw failure("nested deeper than \(Self.deepest)") }
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case nil: throw failure("the text ends early")
        default: return .number(try number())
        }
    }

    private mutating func word(_ word: String, _ value: JSONValue) throws(Failure) -> JSONValue {
        guard bytes[position...].starts(with: word.utf8) else { throw failure("expected '\(word)'") }
        position += word.utf8.count
        return value
    }

    private mutating func object(depth: Int) throws(Failure) -> JSONValue {
        try expect("{")
        var members: OrderedDictionary<String, JSONValue> = [:]
        skipSpace()
        if take("}") { return .object(members) }
        repeat {
            skipSpace()
            let key = try string()
            skipSpace()
            try expect(":")
            let member = try value(depth: depth + 1)
            if members.updateValue(member, forKey: key) != nil { throw failure("key '\(key)' appears twice") }
            skipSpace()
        } while take(",")
        try expect("}")
        return .object(members)
    }

    private mutating func array(depth: Int) throws(Failure) -> JSONValue {
        try expect("[")
        var elements: [JSONValue] = []
        skipSpace()
        if take("]") { return .array(elements) }
        repeat {
            elements.append(try value(depth: depth + 1))
            skipSpace()
        } while take(",")
        try expect("]")
        return .array(elements)
    }

    private mutating func digits() throws(Failure) {
        let start = position
        while let byte = next, (0x30...0x39).contains(byte) { position += 1 }
        if position == start { throw failure("expected a digit") }
    }

    private mutating func number() throws(Failure) -> Double {
        let start = position
        _ = take("-")
        if !take("0") { try digits() }
        if take(".") { try digits() }
        if take("e") || take("E") {
            if !take("+") { _ = take("-") }
            try digits()
        }
        guard let number = Double(String(decoding: bytes[start..<position], as: UTF8.self)), number.isFinite else {
            throw failure("a number out of range")
        }
        return number
    }

    private mutating func string() throws(Failure) -> String {
        try expect("\"")
        var text: [UInt8] = []
        while let byte = next {
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(validating: text, as: UTF8.self) else { throw failure("not valid UTF-8") }
                return string
            case UInt8(ascii: "\\"): text.append(contentsOf: UTF8.encode(try escape())!)
            case 0..<0x20: throw failure("a control character in a string")
            default: text.append(byte)
            }
        }
        throw failure("a string without an end")
    }

    private mutating func escape() throws(Failure) -> Unicode.Scalar {
        guard let byte = next else { throw failure("an escape without an end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw failure("an unknown escape")
        }
        let first = try codeUnit()
        if let scalar = Unicode.Scalar(first) { return scalar }
        guard UTF16.isLeadSurrogate(UInt16(first)), take("\\"), take("u") else {
            throw failure("half a surrogate pair")
        }
        let second = try codeUnit()
        guard UTF16.isTrailSurrogate(UInt16(second)) else { throw failure("half a surrogate pair") }
        return Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))!
    }

    private mutating func codeUnit() throws(Failure) -> UInt32 {
        guard position + 4 <= bytes.endIndex else { throw failure("an escape without an end") }
        var unit: UInt32 = 0
        for byte in bytes[position..<position + 4] {
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { throw failure("not a hex digit") }
            unit = unit << 4 | UInt32(digit)
        }
        position += 4
        return unit
    }
}

extension JSONValue {
    /// Parses the text of a file.
    /// - Throws: `TelemetryError` with code `malformed`, naming the byte.
    public init(parsing bytes: [UInt8], path: String? = nil) throws(TelemetryError) {
        do throws(JSONParser.Failure) {
            self = try JSONParser.parse(bytes[...])
        } catch {
            throw TelemetryError(.malformed, "not JSON: byte \(error.offset): \(error.problem)", path: path)
        }
    }
}
