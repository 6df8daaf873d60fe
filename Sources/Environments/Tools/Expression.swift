#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The value of an arithmetic expression: `+ - * / // % **` (also `^`, `×`, `÷`, `−`), brackets, decimals, `pi`, `e`, and
/// `abs`, `ceil`, `exp`, `floor`, `ln`, `log` (base 10), `max`, `min`, `round`, `sqrt`, `sin`, `cos`, `tan`.
///
/// Fractions are exact as long as they fit 64 bits; roots, logarithms and the like give the nearest double. The rules for
/// precedence, `//`, `%` and `**` are Python's.
struct Expression {
    struct Problem: Error, Hashable {
        let message: String
    }

    enum Value: Hashable {
        case exact(ExactRational)
        case real(Double)

        var double: Double {
            switch self {
            case .exact(let value): value.double
            case .real(let value): value
            }
        }
    }

    static let maximumBytes = 1024
    private static let maximumDepth = 64

    private let bytes: [UInt8]
    private var position = 0
    private var depth = 0
    /// How many functions' brackets are open.
    private var calls = 0

    private init(_ text: String) {
        var spelt: [UInt8] = []
        for scalar in text.unicodeScalars {
            switch scalar {
            case "×", "·": spelt.append(UInt8(ascii: "*"))
            case "÷": spelt.append(UInt8(ascii: "/"))
            case "−", "–": spelt.append(UInt8(ascii: "-"))
            default: spelt += Array(String(scalar).utf8)
            }
        }
        bytes = spelt
    }

    static func value(_ text: String) throws(Problem) -> Value {
        guard text.utf8.count <= maximumBytes else {
            throw Problem(message: "the expression is longer than \(maximumBytes) bytes")
        }
        var expression = Expression(text)
        let value = try expression.sum()
        guard expression.peek() == nil else { throw expression.unexpected("an operator") }
        return value
    }

    /// As people write it: exact decimals where they end, else 15 digits.
    static func text(_ value: Value) -> String {
        if case .exact(let exact) = value, let decimals = exact.decimals { return decimals }
        let double = value.double
        if double.rounded() == double, abs(double) < 1e15 { return String(Int(double)) }
        // The first 15 digits: the rest is rounding.
        let scale = pow(10, 14 - floor(log10(abs(double))))
        let rounded = (double * scale).rounded() / scale
        guard rounded.isFinite else { return "\(double)" }
        // The scale is not exact far from 1: the neighbour with the fewest digits is meant.
        let near = [rounded, rounded.nextUp, rounded.nextDown].map { "\($0)" }
        return near.min { $0.utf8.count < $1.utf8.count } ?? "\(double)"
    }

    // MARK: - Grammar

    private mutating func sum() throws(Problem) -> Value {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumDepth else {
            throw Problem(message: "brackets nest more than \(Self.maximumDepth) deep")
        }
        var value = try product()
        while let sign = peek(), sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") {
            position += 1
            let other = try product()
            value = try Self.add(value, sign == UInt8(ascii: "-") ? Self.negate(other) : other)
        }
        return value
    }

    private mutating func product() throws(Problem) -> Value {
        var value = try signed()
        while true {
            if take("//") {
                value = try Self.floorDivide(value, signed())
            } else if take("*") {
                value = try Self.multiply(value, signed())
            } else if take("/") {
                value = try Self.divide(value, signed())
            } else if take("%") {
                value = try Self.modulo(value, signed())
            } else {
                return value
            }
        }
    }

    /// `-2 ** 2` is -4, as in Python.
    private mutating func signed() throws(Problem) -> Value {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumDepth else { throw Problem(message: "too many signs in a row") }
        if take("-") { return Self.negate(try signed()) }
        if take("+") { return try signed() }
        let base = try atom()
        // From the right, as in Python: 2 ** 3 ** 2 is 2 ** 9.
        guard take("**") || take("^") else { return base }
        return try Self.power(base, signed())
    }

    private mutating func atom() throws(Problem) -> Value {
        guard let byte = peek() else { throw unexpected("a number") }
        if take("(") {
            let value = try sum()
            guard take(")") else { throw unexpected("')'") }
            return value
        }
        if (0x30...0x39).contains(byte) || byte == UInt8(ascii: ".") { return try number() }
        let start = position
        while position < bytes.count, (0x61...0x7A).contains(bytes[position] | 0x20) || isDigit(position) {
            position += 1
        }
        guard position > start else { throw unexpected("a number") }
        let name = String(decoding: bytes[start..<position], as: UTF8.self).lowercased()
        if name == "pi" { return .real(.pi) }
        if name == "e" { return .real(M_E) }
        guard take("(") else { throw Problem(message: "'\(name)' is no number, constant or function") }
        calls += 1
        defer { calls -= 1 }
        var arguments = [try sum()]
        while take(",") {
            guard arguments.count < 64 else { throw Problem(message: "'\(name)' has too many arguments") }
            arguments.append(try sum())
        }
        guard take(")") else { throw unexpected("')'") }
        return try Self.apply(name, arguments)
    }

    private mutating func number() throws(Problem) -> Value {
        let start = position
        var digits = 0, places = 0, whole = 0, fits = true
        func digit(_ byte: UInt8) {
            digits += 1
            let (scaled, overflow) = whole.multipliedReportingOverflow(by: 10)
            let (next, carry) = scaled.addingReportingOverflow(Int(byte - 0x30))
            fits = fits && !overflow && !carry
            whole = next
        }
        while position < bytes.count, isDigit(position) || isSeparator(position) {
            if bytes[position] != UInt8(ascii: ",") && bytes[position] != UInt8(ascii: "_") { digit(bytes[position]) }
            position += 1
        }
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            position += 1
            while position < bytes.count, isDigit(position) {
                digit(bytes[position])
                places += 1
                position += 1
            }
        }
        guard digits > 0 else { throw unexpected("a number") }
        var exponent = 0
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            let sign = position + 1 < bytes.count ? bytes[position + 1] : 0
            let first = position + (sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") ? 2 : 1)
            if isDigit(first) {
                position = first
                while isDigit(position) {
                    exponent = min(10_000, exponent * 10 + Int(bytes[position] - 0x30))
                    position += 1
                }
                if sign == UInt8(ascii: "-") { exponent = -exponent }
            }
        }
        let shift = exponent - places
        if fits, abs(shift) <= 18, let scale = ExactRational(10).power(shift), let value = ExactRational(whole) * scale
        {
            return .exact(value)
        }
        let text = String(
            decoding: bytes[start..<position].filter { $0 != UInt8(ascii: ",") && $0 != UInt8(ascii: "_") },
            as: UTF8.self)
        guard let value = Double(text), value.isFinite else {
            throw Problem(message: "the number \(text) is too large")
        }
        return .real(value)
    }

    /// A comma or low line between digits, three of which follow the comma: `1,234,567` and `1_000`. A comma among a
    /// function's arguments separates those.
    private func isSeparator(_ index: Int) -> Bool {
        guard index > 0, isDigit(index - 1), isDigit(index + 1) else { return false }
        if bytes[index] == UInt8(ascii: "_") { return true }
        return bytes[index] == UInt8(ascii: ",") && calls == 0 && isDigit(index + 2) && isDigit(index + 3)
            && !isDigit(index + 4)
    }

    private func isDigit(_ index: Int) -> Bool { index < bytes.count && (0x30...0x39).contains(bytes[index]) }

    // MARK: - Reading

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[position]) { position += 1 }
    }

    /// The next byte that is no blank.
    private mutating func peek() -> UInt8? {
        skipSpace()
        return position < bytes.count ? bytes[position] : nil
    }

    private mutating func take(_ text: StaticString) -> Bool {
        skipSpace()
        let wanted = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
        guard bytes[position...].starts(with: wanted) else { return false }
        position += wanted.count
        return true
    }

    private func unexpected(_ wanted: String) -> Problem {
        guard position < bytes.count else { return Problem(message: "the expression ends where \(wanted) should be") }
        let found = String(decoding: bytes[position...].prefix(12), as: UTF8.self)
        return Problem(message: "expected \(wanted) at '\(found)'")
    }
}
