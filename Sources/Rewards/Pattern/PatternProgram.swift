/// A pattern as instructions for `PatternMachine`.
struct PatternProgram: Hashable, Sendable {
    enum Instruction: Hashable {
        case scalar(Unicode.Scalar)
        case any
        case set(ScalarSet)
        case assertion(PatternAssertion)
        /// Goes on at both places; what the first finds is preferred.
        case split(Int, Int)
        case jump(Int)
        case save(slot: Int)
        case match
    }

    static let maximumInstructions = 20_000

    private(set) var instructions: [Instruction] = []
    let flags: PatternFlags
    /// Two for the whole match and two for each group.
    let slotCount: Int
    private let pattern: String

    init(_ syntax: PatternSyntax, flags: PatternFlags, groupCount: Int, pattern: String) throws {
        self.flags = flags
        self.pattern = pattern
        slotCount = 2 * (groupCount + 1)
        try emit(.save(slot: 0))
        try compile(syntax)
        try emit(.save(slot: 1))
        try emit(.match)
    }

    private mutating func emit(_ instruction: Instruction) throws {
        guard instructions.count < Self.maximumInstructions else {
            throw RewardError(
                .badPattern,
                "pattern '\(pattern)' needs more than \(Self.maximumInstructions) instructions; use smaller counts")
        }
        instructions.append(instruction)
    }

    private mutating func compile(_ syntax: PatternSyntax) throws {
        switch syntax {
        case .empty: break
        case .scalar(let scalar): try emit(.scalar(flags.ignoresCase ? scalar.folded : scalar))
        case .any: try emit(.any)
        case .set(let set): try emit(.set(set))
        case .assertion(let assertion): try emit(.assertion(assertion))
        case .sequence(let items): for item in items { try compile(item) }
        case .group(let inner, let number):
            guard let number else { return try compile(inner) }
            try emit(.save(slot: 2 * number))
            try compile(inner)
            try emit(.save(slot: 2 * number + 1))
        case .choice(let alternatives): try compile(choice: alternatives)
        case .loop(let body, let minimum, let maximum, let isLazy):
            guard let maximum else { return try compile(endless: body, minimum: minimum, isLazy: isLazy) }
            for _ in 0..<minimum { try compile(body) }
            var exits: [Int] = []
            for _ in minimum..<max(minimum, maximum) {
                exits.append(instructions.count)
                try emit(.jump(0))
                try compile(body)
            }
            for exit in exits { setSplit(exit, into: exit + 1, past: instructions.count, isLazy: isLazy) }
        }
    }

    private mutating func compile(choice alternatives: [PatternSyntax]) throws {
        var ends: [Int] = []
        for (index, alternative) in alternatives.enumerated() {
            let split = instructions.count
            let isLast = index == alternatives.count - 1
            if !isLast { try emit(.jump(0)) }
            try compile(alternative)
            if isLast { break }
            ends.append(instructions.count)
            try emit(.jump(0))
            setSplit(split, into: split + 1, past: instructions.count, isLazy: false)
        }
        for end in ends { instructions[end] = .jump(instructions.count) }
    }

    /// The loop's split stands behind the body, so that a round that matches nothing leaves the loop, as in Perl.
    private mutating func compile(endless body: PatternSyntax, minimum: Int, isLazy: Bool) throws {
        for _ in 1..<max(1, minimum) { try compile(body) }
        let entry = instructions.count
        if minimum == 0 { try emit(.jump(0)) }
        let start = instructions.count
        try compile(body)
        let end = instructions.count
        try emit(.jump(0))
        setSplit(end, into: start, past: end + 1, isLazy: isLazy)
        if minimum == 0 { setSplit(entry, into: start, past: end + 1, isLazy: isLazy) }
    }

    private mutating func setSplit(_ index: Int, into body: Int, past end: Int, isLazy: Bool) {
        instructions[index] = isLazy ? .split(end, body) : .split(body, end)
    }
}

extension Unicode.Scalar {
    /// The lower-case form where that is one scalar.
    var folded: Unicode.Scalar {
        let lower = properties.lowercaseMapping.unicodeScalars
        return lower.count == 1 ? lower.first! : self
    }

    /// The upper-case form where that is one scalar.
    var upper: Unicode.Scalar {
        let upper = properties.uppercaseMapping.unicodeScalars
        return upper.count == 1 ? upper.first! : self
    }
}
