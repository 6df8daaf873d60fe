/// The tree of a regular expression.
indirect enum PatternNode {
    enum Greed { case greedy, lazy, possessive }

    enum Assertion: Int32 {
        case lineStart, lineEnd, textStart, textEnd, textEndOrLastNewline, wordBoundary, noWordBoundary
    }

    case empty
    case set(ScalarSet)
    case sequence([PatternNode])
    case alternation([PatternNode])
    case repetition(PatternNode, minimum: Int, maximum: Int?, Greed)
    case look(PatternNode, isAhead: Bool, isNegative: Bool)
    case atomic(PatternNode)
    case assertion(Assertion)

    /// How many scalars it matches, if that is always the same number.
    var fixedLength: Int? {
        switch self {
        case .empty, .look, .assertion: return 0
        case .set: return 1
        case .sequence(let parts):
            var total = 0
            for part in parts {
                guard let length = part.fixedLength else { return nil }
                total += length
            }
            return total
        case .alternation(let branches):
            let lengths = Set(branches.map(\.fixedLength))
            return lengths.count == 1 ? lengths.first! : nil
        case .repetition(let body, let minimum, let maximum, _):
            guard minimum == maximum, let length = body.fixedLength else { return nil }
            return length * minimum
        case .atomic(let body): return body.fixedLength
        }
    }

    /// Whether it can match nothing.
    var isNullable: Bool {
        switch self {
        case .empty, .look, .assertion: true
        case .set: false
        case .sequence(let parts): parts.allSatisfy(\.isNullable)
        case .alternation(let branches): branches.contains(where: \.isNullable)
        case .repetition(let body, let minimum, _, _): minimum == 0 || body.isNullable
        case .atomic(let body): body.isNullable
        }
    }
}
