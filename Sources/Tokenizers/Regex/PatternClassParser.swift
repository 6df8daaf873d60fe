extension PatternParser {
    /// A bracketed class after its `[`, nested classes and `&&` included.
    mutating func parseClass() throws -> ScalarSet {
        try parseClass(depth: 0)
    }

    private mutating func parseClass(depth: Int) throws -> ScalarSet {
        guard depth < Self.maximumDepth else { throw failure("classes nested too deep") }
        let isNegative = take("^" as UnicodeScalar)
        var ranges: [ClosedRange<UInt32>] = []
        var intersected: ScalarSet?
        var isFirst = true
        while true {
            guard let scalar = peek else { throw failure("a class without an end") }
            if scalar == "]", !isFirst {
                position += 1
                break
            }
            isFirst = false
            if take("&&") {
                let left = ScalarSet(ranges)
                intersected = intersected.map { $0.intersection(left) } ?? left
                ranges = []
                continue
            }
            if scalar == "[" {
                if let posix = try parsePosixClass() {
                    ranges += posix.ranges
                } else {
                    position += 1
                    ranges += try parseClass(depth: depth + 1).ranges
                }
                continue
            }
            let (low, set) = try parseClassMember()
            guard let low else {
                ranges += set.ranges
                continue
            }
            if peek == "-", position + 1 < scalars.count, scalars[position + 1] != "]" {
                let dash = position
                position += 1
                if peek == "[" || looksAt("&&") {
                    position = dash + 1
                    ranges += [low...low, 0x2D...0x2D]
                    continue
                }
                guard let high = try parseClassMember().single else { throw failure("a range that ends in a class") }
                guard low <= high else { throw failure("an empty range in a class") }
                ranges.append(low...high)
            } else {
                ranges.append(low...low)
            }
        }
        var set = ScalarSet(ranges)
        if let intersected { set = intersected.intersection(set) }
        if ignoresCase { set = UnicodeProperties.closedUnderCase(set) }
        return isNegative ? set.inverted : set
    }

    private mutating func parseClassMember() throws -> (single: UInt32?, set: ScalarSet) {
        let scalar = try next()
        guard scalar == "\\" else { return (scalar.value, ScalarSet([])) }
        if take("b" as UnicodeScalar) { return (8, ScalarSet([])) }
        if peek == "w" || peek == "W" {
            let word = UnicodeProperties.wordInClass
            return (nil, try next() == "w" ? word : word.inverted)
        }
        let set = try parseSetEscape()
        if set.ranges.count == 1, let range = set.ranges.first, range.count == 1 { return (range.lowerBound, set) }
        return (nil, set)
    }

    /// `[:name:]` or `[:^name:]`; nil if that is not what stands here.
    private mutating func parsePosixClass() throws -> ScalarSet? {
        guard looksAt("[:") else { return nil }
        let start = position
        position += 2
        let isNegative = take("^" as UnicodeScalar)
        var name = ""
        while let scalar = peek, scalar.properties.isAlphabetic {
            name.unicodeScalars.append(scalar)
            position += 1
        }
        guard take(":]") else {
            position = start
            return nil
        }
        let found =
            switch name {
            case "word": UnicodeProperties.wordInClass
            // The bracketed class has the symbols too; `\p{Punct}` has not.
            case "punct": UnicodeProperties.named("P")!.union(UnicodeProperties.named("S")!)
            default: UnicodeProperties.named(name)
            }
        guard let set = found else { throw failure("the unknown class [:\(name):]") }
        return isNegative ? set.inverted : set
    }

    /// An escape that stands for a set of scalars, after its backslash.
    mutating func parseSetEscape() throws -> ScalarSet {
        let scalar = try next()
        func one(_ value: UInt32) -> ScalarSet { ScalarSet([value...value]) }
        switch scalar {
        case "s": return UnicodeProperties.whitespace
        case "S": return UnicodeProperties.whitespace.inverted
        case "d": return UnicodeProperties.decimalDigit
        case "D": return UnicodeProperties.decimalDigit.inverted
        case "w": return UnicodeProperties.word
        case "W": return UnicodeProperties.word.inverted
        case "h": return UnicodeProperties.named("xdigit")!
        case "H": return UnicodeProperties.named("xdigit")!.inverted
        case "N": return one(0x0A).inverted
        case "n": return one(0x0A)
        case "r": return one(0x0D)
        case "t": return one(0x09)
        case "f": return one(0x0C)
        case "v": return one(0x0B)
        case "a": return one(0x07)
        case "e": return one(0x1B)
        case "0": return one(0)
        case "p", "P": return try parseProperty(isNegative: scalar == "P")
        case "x":
            if take("{" as UnicodeScalar) {
                let value = try parseHex(maximum: 8)
                guard take("}" as UnicodeScalar) else { throw failure("a missing '}'") }
                return one(value)
            }
            return one(try parseHex(maximum: 2))
        case "u": return one(try parseHex(maximum: 4))
        default:
            guard !scalar.properties.isAlphabetic || !scalar.isASCII else {
                throw failure("the unknown escape \\\(scalar)")
            }
            return one(scalar.value)
        }
    }

    private mutating func parseProperty(isNegative: Bool) throws -> ScalarSet {
        guard take("{" as UnicodeScalar) else { throw failure("a missing '{' after \\p") }
        let isInverted = take("^" as UnicodeScalar) != isNegative
        var name = ""
        while let scalar = peek, scalar != "}" {
            name.unicodeScalars.append(scalar)
            position += 1
        }
        guard take("}" as UnicodeScalar) else { throw failure("a missing '}'") }
        for prefix in ["Script=", "sc=", "General_Category=", "gc="] where name.hasPrefix(prefix) {
            name.removeFirst(prefix.count)
        }
        guard let set = UnicodeProperties.named(name) else { throw failure("the unknown property \(name)") }
        return isInverted ? set.inverted : set
    }

    private mutating func parseHex(maximum: Int) throws -> UInt32 {
        var value: UInt32 = 0
        var digits = 0
        while digits < maximum, let digit = peek.flatMap({ Character($0).hexDigitValue }) {
            value = value << 4 | UInt32(digit)
            digits += 1
            position += 1
        }
        guard digits > 0, value <= ScalarSet.last else { throw failure("a bad hexadecimal escape") }
        return value
    }
}
