/// What one step of the model computes, in this order: `swapsOut`, `swapsIn`, `copies` (one after the other), `work`. In each
/// layer the keys and values of all tokens are written before any of them attends, since work may read blocks that work before
/// it in the same step writes: a prefix that many new prompts have in common is computed once.
public struct StepPlan: Sendable {
    /// A whole block moved between the device's pool and the host's.
    public struct Move: Sendable, Hashable {
        public var from, to: Int32
        public init(from: Int32, to: Int32) {
            self.from = from
            self.to = to
        }
    }

    /// Where the only input of a decoding sequence comes from.
    public enum Input: Sendable, Hashable {
        /// Known tokens, `tokens(of:)` the scheduler has them.
        case known
        /// The token that draw `draw` of the step before sampled: its id may still be on the device.
        case drawn(step: Int, draw: Int)
    }

    /// Consecutive tokens of one sequence.
    public struct Work: Sendable {
        public var sequence: SequenceID
        /// Position of the first token; everything before it is in the cache.
        public var start: Int
        public var count: Int
        public var input: Input
        /// Blocks of the sequence up to the last token of this work.
        public var blocks: [Int32]
        /// Who draws a token from the last position's logits: this sequence, then the samples that fork off here. None where
        /// more of the sequence is still to come.
        public var draws: [Draw]
    }

    /// One token to draw.
    public struct Draw: Sendable, Hashable {
        public var sequence: SequenceID
        public var request, sample: Int
        /// Its index among the sequence's new tokens.
        public var position: Int
    }

    public let step: Int
    public internal(set) var swapsOut: [Move] = []
    public internal(set) var swapsIn: [Move] = []
    public internal(set) var copies: [Move] = []
    public internal(set) var work: [Work] = []
    /// Tokens that this step computes.
    public internal(set) var tokens = 0
    /// Tokens that this step draws.
    public internal(set) var drawCount = 0

    var isEmpty: Bool { work.isEmpty && swapsIn.isEmpty && swapsOut.isEmpty && copies.isEmpty }
}

/// A sequence as the scheduler knows it; never used again for another while a step that names it runs.
public struct SequenceID: Hashable, Sendable {
    let index: Int32
    let generation: Int32
}

/// What became of one drawn token.
public struct DrawOutcome: Sendable, Hashable {
    public var token: Int32
    /// The caller's reason to end here, such as a stop text; stop ids and the length are the scheduler's business.
    public var finish: FinishReason?
    public init(token: Int32, finish: FinishReason? = nil) {
        self.token = token
        self.finish = finish
    }
}

/// A sequence that ended.
public struct FinishedSequence: Sendable, Hashable {
    public var request, sample: Int
    /// New tokens, the stop id included.
    public var tokens: [Int32]
    public var reason: FinishReason
}
