/// One step of a compiled pattern.
struct PatternStep: Sendable {
    enum Operation: UInt8, Sendable {
        /// Match one scalar of set `a`.
        case set
        /// Try `a`, then `b`.
        case split
        /// Go to `a`.
        case jump
        /// Match set `a` at least `b` and at most `c` times (-1: no limit), as often as possible.
        case loop
        /// The same without giving anything back.
        case possessiveLoop
        /// Run the steps up to `accept` as a look-ahead and go to `a`; `b` is 1 if it must fail.
        case lookAhead
        /// The same, `c` scalars back.
        case lookBehind
        /// Run the steps up to `accept`, keep their end and go to `a`.
        case atomic
        /// Check the assertion `a`.
        case assertion
        /// Remember the position in register `a`.
        case mark
        /// Fail unless the position has moved since register `a` was set.
        case checkProgress
        case accept
    }

    var operation: Operation
    var a: Int32 = 0
    var b: Int32 = 0
    var c: Int32 = 0
}

/// Turns a pattern's tree into steps for the backtracking matcher.
struct PatternCompiler {
    private(set) var steps: [PatternStep] = []
    private(set) var sets: [ScalarSet] = []
    private(set) var registers = 0
    private var setIndex: [[ClosedRange<UInt32>]: Int32] = [:]

    static let maximumSteps = 20_000
    /// Nodes visited: a repetition of nothing makes no steps, and nested ones would be visited a thousandfold each.
    private var visits = 0
    static let maximumVisits = 10 * maximumSteps

    static func compile(_ node: PatternNode) throws -> PatternCompiler {
        var compiler = PatternCompiler()
        try compiler.emit(node)
        compiler.steps.append(PatternStep(operation: .accept))
        return compiler
    }

    private mutating func index(of set: ScalarSet) -> Int32 {
        if let index = setIndex[set.ranges] { return index }
        sets.append(set)
        setIndex[set.ranges] = Int32(sets.count - 1)
        return Int32(sets.count - 1)
    }

    private mutating func append(_ step: PatternStep) throws -> Int {
        guard steps.count < Self.maximumSteps else {
            throw TokenizerError(.invalidPattern, "a pattern of more than \(Self.maximumSteps) steps")
        }
        steps.append(step)
        return steps.count - 1
    }

    private var here: Int32 { Int32(steps.count) }

    private mutating func emit(_ node: PatternNode) throws {
        visits += 1
        guard visits <= Self.maximumVisits else {
            throw TokenizerError(
                .invalidPattern, "a pattern whose repetitions come to over \(Self.maximumVisits) parts")
        }
        switch node {
        case .empty: break
        case .set(let set): _ = try append(PatternStep(operation: .set, a: index(of: set)))
        case .sequence(let parts):
            for part in parts { try emit(part) }
        case .alternation(let branches): try emitAlternation(branches)
        case .repetition(let body, let minimum, let maximum, let greed):
            try emitRepetition(body, minimum, maximum, greed)
        case .look(let body, let isAhead, let isNegative): try emitLook(body, isAhead, isNegative)
        case .atomic(let body):
            let start = try append(PatternStep(operation: .atomic))
            try emit(body)
            _ = try append(PatternStep(operation: .accept))
            steps[start].a = here
        case .assertion(let kind): _ = try append(PatternStep(operation: .assertion, a: kind.rawValue))
        }
    }

    private mutating func emitAlternation(_ branches: [PatternNode]) throws {
        var exits: [Int] = []
        for (number, branch) in branches.enumerated() {
            if number == branches.count - 1 {
                try emit(branch)
            } else {
                let split = try append(PatternStep(operation: .split, a: here + 1))
                try emit(branch)
                exits.append(try append(PatternStep(operation: .jump)))
                steps[split].b = here
            }
        }
        for exit in exits { steps[exit].a = here }
    }

    private mutating func emitRepetition(
        _ body: PatternNode, _ minimum: Int, _ maximum: Int?, _ greed: PatternNode.Greed
    ) throws {
        if case .set(let set) = body, greed != .lazy {
            let operation = greed == .greedy ? PatternStep.Operation.loop : .possessiveLoop
            let bounds = (Int32(minimum), Int32(maximum ?? -1))
            _ = try append(PatternStep(operation: operation, a: index(of: set), b: bounds.0, c: bounds.1))
            return
        }
        if greed == .possessive {
            try emit(.atomic(.repetition(body, minimum: minimum, maximum: maximum, .greedy)))
            return
        }
        for _ in 0..<minimum { try emit(body) }
        let isLazy = greed == .lazy
        func point(_ split: Int, to exit: Int32) {
            if isLazy { steps[split].a = exit } else { steps[split].b = exit }
        }
        func splitStep() -> PatternStep {
            isLazy ? PatternStep(operation: .split, b: here + 1) : PatternStep(operation: .split, a: here + 1)
        }
        if let maximum {
            var splits: [Int] = []
            for _ in minimum..<maximum {
                splits.append(try append(splitStep()))
                try emit(body)
            }
            for split in splits { point(split, to: here) }
            return
        }
        let split = try append(splitStep())
        if body.isNullable {
            let register = Int32(registers)
            registers += 1
            _ = try append(PatternStep(operation: .mark, a: register))
            try emit(body)
            _ = try append(PatternStep(operation: .checkProgress, a: register))
        } else {
            try emit(body)
        }
        _ = try append(PatternStep(operation: .jump, a: Int32(split)))
        point(split, to: here)
    }

    private mutating func emitLook(_ body: PatternNode, _ isAhead: Bool, _ isNegative: Bool) throws {
        if !isAhead, body.fixedLength == nil, case .alternation(let branches) = body {
            // Branches of different lengths are looked for one by one.
            let looks = branches.map { PatternNode.look($0, isAhead: false, isNegative: isNegative) }
            try emit(isNegative ? .sequence(looks) : .alternation(looks))
            return
        }
        var step = PatternStep(operation: isAhead ? .lookAhead : .lookBehind, b: isNegative ? 1 : 0)
        if !isAhead {
            guard let length = body.fixedLength else {
                throw TokenizerError(.invalidPattern, "a look-behind of no fixed length")
            }
            step.c = Int32(length)
        }
        let start = try append(step)
        try emit(body)
        _ = try append(PatternStep(operation: .accept))
        steps[start].a = here
    }
}
