/// A sequence of which some tokens are learnt: what comes before the first of them is its prompt, and what follows the last is
/// left out, since no loss depends on it.
public struct SupervisedSequence: Sendable, Hashable {
    public var tokens: TrainingSequence
    /// 1 where a token of the response is learnt, else 0; it begins and ends with 1.
    public private(set) var mask: [Float]

    /// - Parameter mask: 1 at tokens that are learnt, as long as `ids`. A first token cannot be: nothing predicts it.
    /// - Returns: nil where no token is learnt.
    public init?(ids: [Int32], mask: [UInt8]) {
        precondition(ids.count == mask.count, "\(ids.count) tokens with a mask of \(mask.count)")
        guard let first = mask.indices.dropFirst().first(where: { mask[$0] != 0 }),
            let last = mask.lastIndex(where: { $0 != 0 })
        else { return nil }
        tokens = TrainingSequence(prompt: Array(ids[..<first]), response: Array(ids[first...last]))
        self.mask = mask[first...last].map { $0 != 0 ? 1 : 0 }
    }

    /// A sequence that is read as a whole, as a reward model does; `prompt` is what it shares with its partner.
    public init(prompt: [Int32], response: [Int32]) {
        tokens = TrainingSequence(prompt: prompt, response: response)
        mask = []
    }

    /// Tokens that are learnt.
    public var learntTokens: Int { mask.reduce(0) { $0 + ($1 != 0 ? 1 : 0) } }
}

/// What a loss must see together: one sequence, or the chosen and then the rejected of a pair.
public struct SupervisedExample: Sendable, Hashable {
    public var sequences: [SupervisedSequence]
    /// Each sequence's log-probability under the reference, summed over its learnt tokens; nil where none is needed.
    public var references: [Float]?
    /// How much better the chosen answer is, where the data says so.
    public var margin: Float?

    public init(_ sequences: [SupervisedSequence], references: [Float]? = nil, margin: Float? = nil) {
        self.sequences = sequences
        self.references = references
        self.margin = margin
    }

    public var learntTokens: Int { sequences.reduce(0) { $0 + $1.learntTokens } }

    /// Tokens that a forward pass computes for it at most, beside no other; a score is read at the last token as well.
    func computedTokens(sharesPrefixes: Bool) -> Int {
        let whole = sequences.map { TrainingSequence(prompt: $0.tokens.prompt, response: $0.tokens.response + [0]) }
        return Pack(whole, sharesPrefixes: sharesPrefixes).tokenCount
    }
}

extension MicroBatches {
    /// Places of `examples` in micro-batches of at most `tokenBudget` computed tokens each, in order and each example whole. One
    /// longer than the budget is a micro-batch of its own.
    public static func split(_ examples: [SupervisedExample], tokenBudget: Int, sharesPrefixes: Bool) -> [Range<Int>] {
        var result: [Range<Int>] = [], start = 0, tokens = 0
        for (index, example) in examples.enumerated() {
            let cost = example.computedTokens(sharesPrefixes: sharesPrefixes)
            if index > start, tokens + cost > tokenBudget {
                result.append(start..<index)
                (start, tokens) = (index, 0)
            }
            tokens += cost
        }
        if start < examples.count { result.append(start..<examples.count) }
        return result
    }
}
