/// What is done to single logits before a draw, for all rows of a step: columns for `Tensor.adjust`. `x` becomes `x /
/// factor` where it is positive and `x · factor` elsewhere, then `offset` is added.
public struct LogitAdjustmentList: Sendable, Hashable {
    public private(set) var rows: [Int32] = []
    public private(set) var tokens: [Int32] = []
    public private(set) var factors: [Float] = []
    public private(set) var offsets: [Float] = []

    public init() {}

    public var count: Int { rows.count }
    public var isEmpty: Bool { rows.isEmpty }

    /// Drops the entries and keeps their memory for the next step.
    public mutating func removeAll() {
        rows.removeAll(keepingCapacity: true)
        tokens.removeAll(keepingCapacity: true)
        factors.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
    }

    mutating func append(row: Int32, token: Int32, factor: Float, offset: Float) {
        rows.append(row)
        tokens.append(token)
        factors.append(factor)
        offsets.append(offset)
    }
}

/// Keeps what one sequence's penalties, biases and least length do to its logits, as its tokens come.
///
/// With vLLM's meaning: the repetition penalty falls on tokens of the prompt and of the answer, presence and frequency
/// penalties on the answer's alone. vLLM adds biases before the repetition penalty, here they come after it.
public struct LogitAdjuster: Sendable {
    private struct Entry {
        let token: Int32
        var isInPrompt = false
        /// Times in the answer.
        var count = 0
        var bias: Float = 0
        var isStop = false
    }

    private let sampling: SamplingParameters
    /// In the order in which tokens were first met, one a token.
    private var entries: [Entry] = []
    private var places: [Int32: Int] = [:]
    /// Tokens of the answer so far.
    public private(set) var generated = 0

    public init(_ sampling: SamplingParameters, prompt: some Sequence<Int32>) {
        self.sampling = sampling
        if sampling.repetitionPenalty != 1 {
            for token in prompt { entries[place(of: token)].isInPrompt = true }
        }
        for (token, bias) in sampling.logitBias.sorted(by: { $0.key < $1.key }) {
            entries[place(of: token)].bias = bias
        }
        if sampling.minTokens > 0, !sampling.ignoreEOS {
            for token in sampling.stopTokenIDs.sorted() { entries[place(of: token)].isStop = true }
        }
    }

    /// Takes the next token of the answer.
    public mutating func append(_ token: Int32) {
        generated += 1
        if sampling.needsTokenHistory { entries[place(of: token)].count += 1 }
    }

    /// Takes back the answer's last token, which must be `token`: a draft that was refused.
    public mutating func removeLast(_ token: Int32) {
        precondition(generated > 0, "nothing was generated")
        generated -= 1
        guard sampling.needsTokenHistory, let place = places[token] else { return }
        precondition(entries[place].count > 0, "token \(token) was not generated")
        entries[place].count -= 1
    }

    /// Adds what must be done to the logits of the next token, as row `row` of the step.
    public func append(to list: inout LogitAdjustmentList, row: Int) {
        let isTooShort = generated < sampling.minTokens
        for entry in entries {
            let wasSeen = entry.count > 0
            let factor = entry.isInPrompt || wasSeen ? Float(sampling.repetitionPenalty) : 1
            let penalty =
                (wasSeen ? sampling.presencePenalty : 0) + Double(entry.count) * sampling.frequencyPenalty
            let offset = entry.isStop && isTooShort ? -Float.infinity : Float(Double(entry.bias) - penalty)
            guard factor != 1 || offset != 0 else { continue }
            list.append(row: Int32(row), token: entry.token, factor: factor, offset: offset)
        }
    }

    private mutating func place(of token: Int32) -> Int {
        if let known = places[token] { return known }
        places[token] = entries.count
        entries.append(Entry(token: token))
        return entries.count - 1
    }
}
