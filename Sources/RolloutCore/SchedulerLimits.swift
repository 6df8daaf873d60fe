/// What the scheduler may use.
public struct SchedulerLimits: Sendable, Hashable {
    public enum Preemption: Sendable, Hashable {
        /// What a sequence that had to yield has computed is computed again.
        case recompute
        /// It waits in up to this many blocks of host memory; computed again where those are full.
        case swap(hostBlocks: Int)
    }
    /// Blocks of the device's pool and tokens of each.
    public var blocks, blockSize: Int
    /// Prompt and decoded tokens that one step computes together.
    public var tokensPerStep: Int
    /// Sequences that run at a time.
    public var runningSequences: Int
    /// The most prompt tokens of one sequence in a step; smaller chunks make decoding steps even.
    public var prefillChunk: Int
    /// Whether a prompt may be computed in several steps. Without, `prefillChunk` says nothing, a longer prompt than a step is
    /// refused, and one waits until a step has room for it; only what yielded and has grown longer than a step is cut when it is
    /// computed again.
    public var cutsPrompts: Bool
    public var prefixCaching: Bool
    public var preemption: Preemption
    /// Several tokens a step where earlier text foretells them; nil: off.
    public var speculation: Speculation?

    public init(
        blocks: Int, blockSize: Int = 16, tokensPerStep: Int = 8192, runningSequences: Int = 1024,
        prefillChunk: Int = .max, cutsPrompts: Bool = true, prefixCaching: Bool = false,
        preemption: Preemption = .recompute, speculation: Speculation? = nil
    ) {
        self.blocks = blocks
        self.blockSize = blockSize
        self.tokensPerStep = tokensPerStep
        self.runningSequences = runningSequences
        self.prefillChunk = prefillChunk
        self.cutsPrompts = cutsPrompts
        self.prefixCaching = prefixCaching
        self.preemption = preemption
        self.speculation = speculation
    }

    func check() throws(SchedulerError) {
        guard blocks > 0, blockSize > 0, tokensPerStep > 0, runningSequences > 0, prefillChunk > 0 else {
            throw SchedulerError(code: .badLimits, message: "every limit must be 1 or more: \(self)")
        }
        guard tokensPerStep >= runningSequences else {
            throw SchedulerError(
                code: .badLimits,
                message: "\(runningSequences) running sequences do not fit a step of \(tokensPerStep) "
                    + "tokens; raise the step's tokens or lower the sequences")
        }
        if let speculation,
            speculation.maxDraft < 1 || speculation.minNgram < 1 || speculation.maxNgram < speculation.minNgram
        {
            throw SchedulerError(
                code: .badLimits,
                message: "drafts of \(speculation.maxDraft) tokens after n-grams of \(speculation.minNgram) to "
                    + "\(speculation.maxNgram); all must be 1 or more, in order")
        }
    }
}

/// A request or a set of limits that can never be served.
public struct SchedulerError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        public static let badRequest = Code("badRequest")
        public static let badLimits = Code("badLimits")
        /// It needs more blocks than the whole pool has.
        public static let tooLong = Code("tooLong")
    }
    public let code: Code
    public let message: String
    public var description: String { "scheduler: \(message)" }
}

/// What the scheduler has done so far.
public struct SchedulerStatistics: Sendable, Hashable {
    public var steps = 0
    /// Tokens computed, drafts included, again counted where they were computed again.
    public var tokens = 0
    /// Prompt tokens found in the cache.
    public var foundTokens = 0
    public var recomputed = 0, swappedOut = 0, swappedIn = 0
    /// Draft tokens computed, and those of them that were drawn.
    public var drafted = 0, accepted = 0
    /// Times that a sequence gave up its blocks for one before it in line.
    public var yields: Int { recomputed + swappedOut }
}
