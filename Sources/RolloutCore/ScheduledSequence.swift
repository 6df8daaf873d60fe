/// One sample of a request while it is on its way.
struct ScheduledSequence: Sendable {
    enum Phase: Sendable, Hashable { case free, waiting, running, swapped, finished }

    var phase = Phase.free
    var generation: Int32 = 0
    var request = 0, sample = 0
    var priority = 0, arrival = 0
    var promptCount = 0
    /// Prompt and new tokens whose ids are known.
    var tokens: [Int32] = []
    /// New tokens drawn by steps whose outcome is not known yet.
    var pending = 0
    /// Which draw of which step gives the newest pending token.
    var newest = (step: 0, draw: 0)
    /// Tokens whose keys and values are in the cache, or will be when the steps under way end.
    var computed = 0
    var blocks: [Int32] = []
    /// While swapped: the host block of each block that is not resident; -1 where the device still holds it.
    var hostBlocks: [Int32] = []
    /// Steps under way that compute this sequence.
    var inFlight = 0
    /// The newest step that computes it or draws for it.
    var lastStep = -1
    /// Blocks that are registered by content, and the key of the last.
    var registered = 0
    var key = PrefixKey.root
    /// Computed in part by older weights: what it holds must not be found by others.
    var isMixed = false
    /// Samples of the request that fork off when the prompt is computed.
    var forksWaiting = 0

    /// Tokens known or drawn.
    var length: Int { tokens.count + pending }
    /// Where it stands in line: lower comes first.
    var rank: Rank { Rank(priority: priority, arrival: arrival, sample: sample) }

    struct Rank: Comparable, Sendable {
        var priority, arrival, sample: Int
        static func < (a: Rank, b: Rank) -> Bool {
            (a.priority, a.arrival, a.sample) < (b.priority, b.arrival, b.sample)
        }
    }
}

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
    public var prefixCaching: Bool
    public var preemption: Preemption

    public init(
        blocks: Int, blockSize: Int = 16, tokensPerStep: Int = 8192, runningSequences: Int = 1024,
        prefillChunk: Int = .max, prefixCaching: Bool = false, preemption: Preemption = .recompute
    ) {
        self.blocks = blocks
        self.blockSize = blockSize
        self.tokensPerStep = tokensPerStep
        self.runningSequences = runningSequences
        self.prefillChunk = prefillChunk
        self.prefixCaching = prefixCaching
        self.preemption = preemption
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
