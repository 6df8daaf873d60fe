/// Reads a regular expression in the syntax of Oniguruma (Ruby's), which is what `tokenizer.json` holds.
///
/// Groups capture nothing here: only where a match begins and ends is ever asked for. Back-references, conditionals,
/// recursion and callouts are refused.
struct PatternParser {
    let scalars: [UnicodeScalar]
    var position = 0
    var ignoresCase = false
    var dotMatchesNewline = false
    var isExtended = false
    private var depth = 0

    static let maximumDepth = 100
    static let maximumRepeat = 1000
    /// Quantifiers on one atom, each of which is a level of the tree.
    static let maximumQuantifiers = 10

    init(_ pattern: String) {
        scalars = Array(pattern.unicodeScalars)
    }

    static func parse(_ pattern: String) throws -> PatternNode {
        var parser = PatternParser(pattern)
        let node = try parser.parseAlternation()
        guard parser.position == parser.scalars.count else { throw parser.failure("an unmatched ')'") }
        return node
    }

    func failure(_ what: String) -> TokenizerError {
        var pattern = String.UnicodeScalarView()
        pattern.append(contentsOf: scalars.prefix(200))
        let text = String(pattern) + (scalars.count > 200 ? "…" : "")
        return TokenizerError(.invalidPattern, "\(what) at scalar \(position) of the pattern \(text)")
    }

    var peek: UnicodeScalar? { position < scalars.count ? scalars[position] : nil }

    mutating func take(_ scalar: UnicodeScalar) -> Bool {
        guard peek == scalar else { return false }
        position += 1
        return true
    }

    func looksAt(_ text: String) -> Bool {
        let wanted = Array(text.unicodeScalars)
        return position + wanted.count <= scalars.count
            && scalars[position..<position + wanted.count].elementsEqual(wanted)
    }

    mutating func take(_ text: String) -> Bool {
        guard looksAt(text) else { return false }
        position += text.unicodeScalars.count
        return true
    }

    mutating func next() throws -> UnicodeScalar {
        guard let scalar = peek else { throw failure("an unexpected end") }
        position += 1
        return scalar
    }

    private mutating func parseAlternation() throws -> PatternNode {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.maximumDepth else { throw failure("groups nested deeper than \(Self.maximumDepth)") }
        let flags = (ignoresCase, dotMatchesNewline, isExtended)
        defer { (ignoresCase, dotMatchesNewline, isExtended) = flags }
        var branches = [try parseSequence()]
        while take("|" as UnicodeScalar) { branches.append(try parseSequence()) }
        return branches.count == 1 ? branches[0] : .alternation(branches)
    }

    private mutating func parseSequence() throws -> PatternNode {
        var parts: [PatternNode] = []
        while let scalar = peek, scalar != "|", scalar != ")" {
            guard let atom = try parseAtom() else { continue }
            parts.append(try parseQuantifiers(atom))
        }
        return parts.count == 1 ? parts[0] : parts.isEmpty ? .empty : .sequence(parts)
    }

    private mutating func parseQuantifiers(_ atom: PatternNode) throws -> PatternNode {
        var node = atom
        var count = 0
        while let scalar = peek {
            var bounds: (minimum: Int, maximum: Int?)
            var isInterval = false
            switch scalar {
            case "*": bounds = (0, nil)
            case "+": bounds = (1, nil)
            case "?": bounds = (0, 1)
            case "{":
                guard let interval = parseInterval() else { return node }
                bounds = interval
                isInterval = true
            default: return node
            }
            count += 1
            guard count <= Self.maximumQuantifiers else {
                throw failure("more than \(Self.maximumQuantifiers) quantifiers on one another")
            }
            if !isInterval { position += 1 }
            if let maximum = bounds.maximum, maximum < bounds.minimum { throw failure("an interval upside down") }
            guard max(bounds.minimum, bounds.maximum ?? 0) <= Self.maximumRepeat else {
                throw failure("an interval above \(Self.maximumRepeat)")
            }
            var greed = PatternNode.Greed.greedy
            if take("?" as UnicodeScalar) {
                greed = .lazy
            } else if !isInterval, take("+" as UnicodeScalar) {
                // After an interval a plus is another quantifier in this syntax, not a possessive mark.
                greed = .possessive
            }
            node = .repetition(node, minimum: bounds.minimum, maximum: bounds.maximum, greed)
        }
        return node
    }

    /// `{n}`, `{n,}`, `{,m}` or `{n,m}`; anything else is literal text, so nil with nothing consumed.
    private mutating func parseInterval() -> (Int, Int?)? {
        let start = position
        position += 1
        let low = parseDecimal()
        var high = low
        if take("," as UnicodeScalar) { high = parseDecimal() } else if low == nil { position = start; return nil }
        guard take("}" as UnicodeScalar), low != nil || high != nil else {
            position = start
            return nil
        }
        return (low ?? 0, high)
    }

    private mutating func parseDecimal() -> Int? {
        var value: Int?
        while let digit = peek?.value, (0x30...0x39).contains(digit) {
            value = min((value ?? 0) * 10 + Int(digit - 0x30), 1 << 20)
            position += 1
        }
        return value
    }

    /// Nil for what stands for nothing, as comments do.
    private mutating func parseAtom() throws -> PatternNode? {
        let scalar = try next()
        switch scalar {
        case "(": return try parseGroup()
        case "[": return .set(folded(try parseClass()))
        case ".":
            let newline = ScalarSet([0x0A...0x0A])
            return .set(dotMatchesNewline ? ScalarSet([0...ScalarSet.last]) : newline.inverted)
        case "^": return .assertion(.lineStart)
        case "$": return .assertion(.lineEnd)
        case "\\": return try parseEscape()
        case "*", "+", "?": throw failure("a quantifier with nothing before it")
        case "#" where isExtended:
            while let other = peek, other != "\n" { _ = other; position += 1 }
            return nil
        case _ where isExtended && UnicodeProperties.whitespace.contains(scalar.value): return nil
        default: return .set(literal(scalar))
        }
    }

    func literal(_ scalar: UnicodeScalar) -> ScalarSet { folded(ScalarSet([scalar.value...scalar.value])) }

    func folded(_ set: ScalarSet) -> ScalarSet { ignoresCase ? UnicodeProperties.closedUnderCase(set) : set }

    private mutating func parseGroup() throws -> PatternNode? {
        if take("?#") {
            while try next() != ")" {}
            return nil
        }
        if take("?:") { return try closed(parseAlternation()) }
        if take("?=") { return .look(try closed(parseAlternation()), isAhead: true, isNegative: false) }
        if take("?!") { return .look(try closed(parseAlternation()), isAhead: true, isNegative: true) }
        if take("?<=") { return .look(try closed(parseAlternation()), isAhead: false, isNegative: false) }
        if take("?<!") { return .look(try closed(parseAlternation()), isAhead: false, isNegative: true) }
        if take("?>") { return .atomic(try closed(parseAlternation())) }
        if take("?<") || take("?P<") {
            while try next() != ">" {}
            return try closed(parseAlternation())
        }
        if take("?" as UnicodeScalar) { return try parseFlags() }
        return try closed(parseAlternation())
    }

    private mutating func closed(_ node: PatternNode) throws -> PatternNode {
        guard take(")" as UnicodeScalar) else { throw failure("a missing ')'") }
        return node
    }

    /// `(?imx-imx)` up to the end of the enclosing group, or `(?imx-imx:…)`.
    private mutating func parseFlags() throws -> PatternNode? {
        let outer = (ignoresCase, dotMatchesNewline, isExtended)
        var value = true
        while true {
            switch try next() {
            case "i": ignoresCase = value
            case "m": dotMatchesNewline = value
            case "x": isExtended = value
            case "-": value = false
            case ":":
                let node = try closed(parseAlternation())
                (ignoresCase, dotMatchesNewline, isExtended) = outer
                return node
            case ")":
                // The flags hold to the end of the group: what follows is one alternation of its own.
                let rest = try parseAlternation()
                return rest
            default: throw failure("an unknown group option")
            }
        }
    }

    private mutating func parseEscape() throws -> PatternNode {
        switch try next() {
        case "A": return .assertion(.textStart)
        case "z": return .assertion(.textEnd)
        case "Z": return .assertion(.textEndOrLastNewline)
        case "b": return .assertion(.wordBoundary)
        case "B": return .assertion(.noWordBoundary)
        case "R":
            let newline = ScalarSet([0x0A...0x0D, 0x85...0x85, 0x2028...0x2029])
            let pair: [PatternNode] = [.set(ScalarSet([0x0D...0x0D])), .set(ScalarSet([0x0A...0x0A]))]
            return .atomic(.alternation([.sequence(pair), .set(newline)]))
        case "1", "2", "3", "4", "5", "6", "7", "8", "9", "k", "g", "K", "G", "X", "y", "Y":
            throw failure("an unsupported escape (back-references, calls and text segments are)")
        default:
            position -= 1
            return .set(folded(try parseSetEscape()))
        }
    }
}
