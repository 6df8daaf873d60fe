/// Reads a pattern's text.
struct PatternParser {
    static let maximumDepth = 64
    static let maximumRepeat = 1000

    private let pattern: String
    private let scalars: [Unicode.Scalar]
    private var position = 0
    private var depth = 0
    private(set) var groupCount = 0
    private(set) var flags = PatternFlags()

    init(_ pattern: String) {
        self.pattern = pattern
        scalars = Array(pattern.unicodeScalars)
    }

    mutating func parse() throws -> PatternSyntax {
        try parseFlags()
        let syntax = try choice()
        guard position == scalars.count else { throw bad("')' without '('") }
        return syntax
    }

    private func bad(_ message: String) -> RewardError {
        RewardError(.badPattern, "pattern '\(pattern)', scalar \(position + 1): \(message)")
    }

    private var peek: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

    private func starts(_ text: String) -> Bool { scalars[position...].starts(with: text.unicodeScalars) }

    private mutating func take(_ text: String) -> Bool {
        guard starts(text) else { return false }
        position += text.unicodeScalars.count
        return true
    }

    private mutating func parseFlags() throws {
        guard starts("(?"), position + 2 < scalars.count, "ismx-".unicodeScalars.contains(scalars[2]) else { return }
        position += 2
        while let flag = peek, flag != ")" {
            switch flag {
            case "i": flags.ignoresCase = true
            case "s": flags.dotMatchesLineEnds = true
            case "m": flags.anchorsMatchLines = true
            default: throw bad("flag '\(flag)' is not supported; i, s and m are, in (?…) at the start")
            }
            position += 1
        }
        guard take(")") else { throw bad("')' is missing") }
    }

    private mutating func choice() throws -> PatternSyntax {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumDepth else { throw bad("more than \(Self.maximumDepth) groups in each other") }
        var alternatives = [try sequence()]
        while take("|") { alternatives.append(try sequence()) }
        return alternatives.count == 1 ? alternatives[0] : .choice(alternatives)
    }

    private mutating func sequence() throws -> PatternSyntax {
        var items: [PatternSyntax] = []
        while let next = peek, next != "|", next != ")" { items.append(try repeated(try atom())) }
        return items.count == 1 ? items[0] : items.isEmpty ? .empty : .sequence(items)
    }

    private mutating func repeated(_ item: PatternSyntax) throws -> PatternSyntax {
        guard let (minimum, maximum) = try quantifier() else { return item }
        let isLazy = take("?")
        if peek == "+" { throw bad("possessive quantifiers are not supported") }
        if try quantifier() != nil { throw bad("nothing to repeat; put the repeated part into (?:…)") }
        return .loop(item, minimum: minimum, maximum: maximum, isLazy: isLazy)
    }

    private mutating func quantifier() throws -> (Int, Int?)? {
        if take("*") { return (0, nil) }
        if take("+") { return (1, nil) }
        if take("?") { return (0, 1) }
        let start = position
        guard take("{") else { return nil }
        guard let minimum = try count() else {
            // As in Python, a brace that begins no count is itself.
            position = start
            return nil
        }
        var maximum: Int? = minimum
        if take(",") { maximum = try count() }
        guard take("}") else {
            position = start
            return nil
        }
        if let maximum, maximum < minimum { throw bad("{\(minimum),\(maximum)} has its limits swapped") }
        return (minimum, maximum)
    }

    private mutating func count() throws -> Int? {
        var value: Int?
        while let digit = peek, ("0"..."9").contains(digit) {
            value = (value ?? 0) * 10 + Int(digit.value - 0x30)
            if value! > Self.maximumRepeat { throw bad("a count above \(Self.maximumRepeat)") }
            position += 1
        }
        return value
    }

    private mutating func atom() throws -> PatternSyntax {
        guard let next = peek else { return .empty }
        switch next {
        case "(": return try group()
        case "[":
            position += 1
            return .set(try set())
        case ".":
            position += 1
            return .any
        case "^":
            position += 1
            return .assertion(.start)
        case "$":
            position += 1
            return .assertion(.end)
        case "*", "+", "?": throw bad("nothing to repeat before '\(next)'")
        case "\\": return try escape()
        default:
            position += 1
            return .scalar(next)
        }
    }

    private mutating func group() throws -> PatternSyntax {
        position += 1
        var number: Int?
        if take("?:") {
        } else if peek == "?" {
            throw bad("'(?' is only supported as (?:…); look-around and named groups are not")
        } else {
            groupCount += 1
            number = groupCount
        }
        let inner = try choice()
        guard take(")") else { throw bad("')' is missing") }
        return .group(inner, number: number)
    }

    private mutating func escape() throws -> PatternSyntax {
        if take("\\b") { return .assertion(.wordBoundary) }
        if take("\\B") { return .assertion(.noWordBoundary) }
        if take("\\A") || take("\\Z") || take("\\z") { throw bad("\\A and \\Z are not supported; use ^ and $") }
        if let set = shorthand() { return .set(set) }
        return .scalar(try escapedScalar())
    }

    private mutating func shorthand() -> ScalarSet? {
        let sets: [(String, ScalarSet)] = [
            ("\\d", .digits), ("\\w", .word), ("\\s", .space), ("\\D", .digits.inverted), ("\\W", .word.inverted),
            ("\\S", .space.inverted),
        ]
        for (name, set) in sets where take(name) { return set }
        return nil
    }

    private mutating func escapedScalar() throws -> Unicode.Scalar {
        position += 1
        guard let next = peek else { throw bad("'\\' at the end") }
        position += 1
        switch next {
        case "n": return "\n"
        case "t": return "\t"
        case "r": return "\r"
        case "f": return "\u{C}"
        case "v": return "\u{B}"
        case "x": return try hexadecimal(digits: 2)
        case "u": return try hexadecimal(digits: 4)
        case "1"..."9": throw bad("back-references are not supported")
        case "0", "a"..."z", "A"..."Z": throw bad("'\\\(next)' is not supported")
        default: return next
        }
    }

    private mutating func hexadecimal(digits: Int) throws -> Unicode.Scalar {
        guard position + digits <= scalars.count else { throw bad("\(digits) hexadecimal digits are missing") }
        var value: UInt32 = 0
        for scalar in scalars[position..<position + digits] {
            guard let digit = Character(scalar).hexDigitValue else { throw bad("not a hexadecimal digit: '\(scalar)'") }
            value = value << 4 | UInt32(digit)
        }
        position += digits
        guard let scalar = Unicode.Scalar(value) else { throw bad("no scalar has this number") }
        return scalar
    }

    private mutating func set() throws -> ScalarSet {
        let isInverted = take("^")
        var ranges: [ClosedRange<UInt32>] = []
        var isFirst = true
        while let next = peek, next != "]" || isFirst {
            isFirst = false
            if let shorthand = shorthand() {
                ranges += shorthand.ranges
                continue
            }
            let low = try setScalar()
            guard starts("-"), position + 1 < scalars.count, scalars[position + 1] != "]" else {
                ranges.append(low.value...low.value)
                continue
            }
            position += 1
            if shorthand() != nil { throw bad("a range that ends in a class") }
            let high = try setScalar()
            guard low <= high else { throw bad("the range \(low)-\(high) has its ends swapped") }
            ranges.append(low.value...high.value)
        }
        guard take("]") else { throw bad("']' is missing") }
        return ScalarSet(ranges: ranges, isInverted: isInverted)
    }

    private mutating func setScalar() throws -> Unicode.Scalar {
        guard let next = peek else { throw bad("']' is missing") }
        if next == "\\" { return take("\\b") ? "\u{8}" : try escapedScalar() }
        position += 1
        return next
    }
}
