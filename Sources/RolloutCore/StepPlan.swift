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

    /// Where the first input comes from.
    public enum Input: Sendable, Hashable {
        /// Known tokens, `tokens(of:)` the scheduler has them.
        case known
        /// The token that draw `draw` of the step before sampled: its id may still be on the device.
        case drawn(step: Int, draw: Int)
    }

    /// Consecutive tokens of one sequence.
    public struct Work: Sendable {
        public var sequence: SequenceID
        /// The sequence's own while it runs, below the most that ever ran at a time: its row in tables kept on the device.
        public var row: Int32
        /// Position of the first token; everything before it is in the cache.
        public var start: Int
        /// Input tokens, the drafts included.
        public var count: Int
        public var input: Input
        /// The last inputs where they are guessed: `tokens(of:)` does not hold them. Only where the input is known and every
        /// position, from that of the token before the first draft on, draws.
        public var drafts: [Int32]
        /// Blocks of the sequence up to the last token of this work. Shared with the scheduler: keeping it costs a copy later.
        public var blocks: ArraySlice<Int32>
        /// Places of `blocks` before this one are as in the last work of the same row; 0 where another sequence had the row.
        public var firstChangedBlock: Int
        /// Who draws tokens from its logits, as places in ``StepPlan/draws``: this sequence, then the samples that fork off
        /// here. None where more of the sequence is still to come.
        public var draws: Range<Int>

        /// How many of the draws count, given the token of each draw of the plan: those up to the first that differs from the
        /// draft in its place, which it replaces. A stop may still end the sequence before.
        public func acceptedDraws(_ token: (Int) -> Int32) -> Int {
            guard !drafts.isEmpty else { return draws.count }
            var agreed = 0
            while agreed < drafts.count, token(draws.lowerBound + agreed) == drafts[agreed] { agreed += 1 }
            return agreed + 1
        }
    }

    /// One token to draw.
    public struct Draw: Sendable, Hashable {
        public var sequence: SequenceID
        /// The row of the drawing sequence (``Work/row``).
        public var row: Int32
        public var request, sample: Int
        /// Its index among the sequence's new tokens.
        public var position: Int
        /// Which of the work's inputs gives the logits.
        public var offset: Int
    }

    public let step: Int
    public internal(set) var swapsOut: [Move] = []
    public internal(set) var swapsIn: [Move] = []
    public internal(set) var copies: [Move] = []
    public internal(set) var work: [Work] = []
    /// Tokens that this step draws, in the order of the work.
    public internal(set) var draws: [Draw] = []
    /// Tokens that this step computes.
    public internal(set) var tokens = 0
    /// From here on in line, nobody behind can give up blocks any more.
    var hopelessFrom: ScheduledSequence.Rank?

    public var drawCount: Int { draws.count }
    var isEmpty: Bool { work.isEmpty && swapsIn.isEmpty && swapsOut.isEmpty && copies.isEmpty }

    init(step: Int) { self.step = step }
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
