/// Reads one JSON text (RFC 8259) from bytes. Bounds the depth, refuses what JSON has no name for (`NaN`, lone surrogates).
public struct JSONParser: ~Copyable {
    /// What is wrong, and at which byte of the text.
    public struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        public let message: String
        public let offset: Int

        public var description: String { "\(message) at byte \(offset + 1)" }
    }

    public static let maximumDepth = 128

    private let bytes: UnsafeBufferPointer<UInt8>
    private var position = 0
    private var depth = 0

    private init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    /// The value of a whole text; anything but white space after it is an error.
    public static func parse(_ bytes: UnsafeBufferPointer<UInt8>) throws(Failure) -> JSONValue {
        var parser = JSONParser(bytes)
        let value = try parser.value()
        parser.skipSpace()
        guard parser.position == bytes.count else { throw parser.failure("text after the end of the value") }
        return value
    }

    public static func parse(_ text: String) throws(Failure) -> JSONValue {
        let parsed = Array(text.utf8).withUnsafeBufferPointer { bytes in
            Result { () throws(Failure) in try parse(bytes) }
        }
        return try parsed.get()
    }

    private func failure(_ message: String) -> Failure { Failure(message: message, offset: position) }

    private var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private mutating func value() throws(Failure) -> JSONValue {
        skipSpace()
        switch peek {
        case nil: throw failure("the text ends where a value should be")
        case UInt8(ascii: "{"): return try object()
        case UInt8(ascii: "["): return try array()
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"):
            try word("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try word("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try word("null")
            return .null
        default: return try number()
        }
    }

    private mutating func word(_ word: StaticString) throws(Failure) {
        let length = word.utf8CodeUnitCount
        guard position + length <= bytes.count else { throw failure("unknown word") }
        for index in 0..<length where bytes[position + index] != word.utf8Start[index] { throw failure("unknown word") }
        position += length
    }

    private mutating func enter() throws(Failure) {
        depth += 1
        guard depth <= Self.maximumDepth else {
            throw failure("more than \(Self.maximumDepth) levels of nesting")
        }
        position += 1
        skipSpace()
    }

    private mutating func object() throws(Failure) -> JSONValue {
        try enter()
        defer { depth -= 1 }
        var members: [JSONObject.Member] = []
        if peek == UInt8(ascii: "}") {
            position += 1
            return .object(JSONObject())
        }
        while true {
            skipSpace()
            guard peek == UInt8(ascii: "\"") else { throw failure("a member's name in double quotes is missing") }
            let name = try string()
            skipSpace()
            guard peek == UInt8(ascii: ":") else { throw failure("':' is missing") }
            position += 1
            members.append(.init(name: name, value: try value()))
            if try isLast(closing: UInt8(ascii: "}")) { return .object(JSONObject(members)) }
        }
    }

    private mutating func array() throws(Failure) -> JSONValue {
        try enter()
        defer { depth -= 1 }
        var elements: [JSONValue] = []
        if peek == UInt8(ascii: "]") {
            position += 1
            return .array([])
        }
        while true {
            elements.append(try value())
            if try isLast(closing: UInt8(ascii: "]")) { return .array(elements) }
        }
    }

    private mutating func isLast(closing: UInt8) throws(Failure) -> Bool {
        skipSpace()
        guard let next = peek, next == closing || next == UInt8(ascii: ",") else {
            throw failure("',' or '\(Character(Unicode.Scalar(closing)))' is missing")
        }
        position += 1
        return next == closing
    }

    private mutating func number() throws(Failure) -> JSONValue {
        let start = position
        if peek == UInt8(ascii: "-") { position += 1 }
        let leadingZero = peek == UInt8(ascii: "0")
        let whole = digits()
        guard whole > 0, !(leadingZero && whole > 1) else {
            position = start
            throw failure("not a JSON value (NaN and Infinity are none)")
        }
        if peek == UInt8(ascii: ".") {
            position += 1
            guard digits() > 0 else { throw failure("a digit is missing after '.'") }
        }
        if peek == UInt8(ascii: "e") || peek == UInt8(ascii: "E") {
            position += 1
            if peek == UInt8(ascii: "+") || peek == UInt8(ascii: "-") { position += 1 }
            guard digits() > 0 else { throw failure("a digit is missing in the exponent") }
        }
        return .number(try text(start..<position))
    }

    private mutating func digits() -> Int {
        let start = position
        while let byte = peek, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
        return position - start
    }

    private func text(_ range: Range<Int>) throws(Failure) -> String {
        guard let text = String(validating: bytes.extracting(range), as: UTF8.self) else {
            throw Failure(message: "invalid UTF-8 in a string", offset: range.lowerBound)
        }
        return text
    }

    private mutating func string() throws(Failure) -> String {
        position += 1
        var result = ""
        var start = position
        while let byte = peek {
            switch byte {
            case UInt8(ascii: "\""):
                let tail = try text(start..<position)
                position += 1
                return result.isEmpty ? tail : result + tail
            case UInt8(ascii: "\\"):
                result += try text(start..<position)
                result.unicodeScalars.append(try escape())
                start = position
            case 0..<0x20: throw failure("a control character in a string")
            default: position += 1
            }
        }
        throw failure("a string without its closing quote")
    }

    private mutating func escape() throws(Failure) -> Unicode.Scalar {
        position += 1
        guard let byte = peek else { throw failure("the text ends in an escape") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try unicodeEscape()
        default:
            position -= 1
            throw failure("unknown escape")
        }
    }

    private mutating func unicodeEscape() throws(Failure) -> Unicode.Scalar {
        let first = try hex4()
        if let scalar = Unicode.Scalar(first) { return scalar }
        let isPair =
            first < 0xDC00 && position + 1 < bytes.count && bytes[position] == UInt8(ascii: "\\")
            && bytes[position + 1] == UInt8(ascii: "u")
        if isPair {
            position += 2
            let second = try hex4()
            if (0xDC00...0xDFFF).contains(second),
                let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            {
                return scalar
            }
        }
        throw failure("half of a surrogate pair")
    }

    private mutating func hex4() throws(Failure) -> UInt32 {
        guard position + 4 <= bytes.count else { throw failure("four hexadecimal digits are missing") }
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
                throw failure("not a hexadecimal digit")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }
}
