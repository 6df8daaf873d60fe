/// One prompt that waits for its samples.
public struct RolloutRequest: Sendable {
    public var prompt: [Int32]
    public var sampling: SamplingParameters

    public init(prompt: [Int32], sampling: SamplingParameters) {
        self.prompt = prompt
        self.sampling = sampling
    }
}

/// Which prompts start when. All n samples of a prompt start together, from one prefill; a prefix common to every prompt is
/// prefilled once a wave and kept in the same slots.
public struct RolloutScheduler: Sendable {
    public struct Limits: Sendable, Hashable {
        /// Sequences that decode at a time.
        public var maxRows: Int
        /// Prompt tokens of one prefill.
        public var maxPrefillTokens: Int
        public init(maxRows: Int, maxPrefillTokens: Int) {
            self.maxRows = maxRows
            self.maxPrefillTokens = maxPrefillTokens
        }
    }

    /// A prompt admitted to a prefill.
    public struct Admission: Sendable {
        public var request: Int
        /// Slots of the prompt's own part, after the common prefix.
        public var ownSlots: [Int32]
    }

    public let requests: [RolloutRequest]
    public let limits: Limits
    /// Tokens that every prompt begins with; each prompt keeps at least one token of its own.
    public let commonPrefix: Int
    public private(set) var prefixSlots: [Int32] = []
    private var pool: SlotPool
    private var next = 0
    private var rows = 0
    /// Samples of each admitted request that still run; at zero its prompt's slots go back.
    private var running: [Int: Int] = [:]
    private var ownSlots: [Int: [Int32]] = [:]
    /// Slots promised to running rows and not taken yet.
    private var promised = 0

    /// Sharing a shorter prefix than this would not pay for the extra segment.
    static let shortestSharedPrefix = 8

    /// - Parameter sharesPrefix: off prefills every prompt whole, with the same result.
    public init(requests: [RolloutRequest], limits: Limits, slots: Int, sharesPrefix: Bool = true) {
        self.requests = requests
        self.limits = limits
        pool = SlotPool(capacity: slots)
        let common = sharesPrefix ? Self.commonPrefix(requests.map(\.prompt)) : 0
        commonPrefix = common >= Self.shortestSharedPrefix ? common : 0
        if commonPrefix > 0, let taken = pool.take(commonPrefix) { prefixSlots = taken }
    }

    /// Slots that let every request run as the row limit allows.
    public static func slotsNeeded(_ requests: [RolloutRequest], limits: Limits) -> Int {
        let common = commonPrefix(requests.map(\.prompt))
        let costs = requests.map { request in
            (rows: request.sampling.n, slots: request.prompt.count + request.sampling.n * request.sampling.maxTokens)
        }
        // The widest window of requests in order that the row limit admits.
        var widest = 0
        for start in costs.indices {
            var rows = 0, slots = 0
            for cost in costs[start...] {
                rows += cost.rows
                slots += cost.slots
                if rows >= limits.maxRows { break }
            }
            widest = max(widest, slots)
        }
        return widest + common
    }

    public static func commonPrefix(_ prompts: [[Int32]]) -> Int {
        guard prompts.count > 1, let first = prompts.first else { return 0 }
        var common = first.count - 1
        for prompt in prompts.dropFirst() {
            common = min(common, prompt.count - 1)
            var length = 0
            while length < common, prompt[length] == first[length] { length += 1 }
            common = length
        }
        return max(0, common)
    }

    public var isDone: Bool { next == requests.count && rows == 0 }
    public var runningRows: Int { rows }

    /// The prompts to prefill now, in order; empty when none fits beside what runs.
    public mutating func admit() -> [Admission] {
        var wave: [Admission] = [], tokens = commonPrefix
        while next < requests.count {
            let request = requests[next]
            let own = request.prompt.count - commonPrefix
            let fitsRows = rows == 0 || rows + request.sampling.n <= limits.maxRows
            let fitsTokens = wave.isEmpty || tokens + own <= limits.maxPrefillTokens
            let needed = own + request.sampling.n * request.sampling.maxTokens
            guard fitsRows, fitsTokens, pool.freeCount - promised >= needed, let slots = pool.take(own) else { break }
            promised += needed - own
            rows += request.sampling.n
            running[next] = request.sampling.n
            ownSlots[next] = slots
            wave.append(Admission(request: next, ownSlots: slots))
            tokens += own
            next += 1
        }
        return wave
    }

    /// The request that could not be admitted although nothing runs, if that is so: it needs more slots than there are.
    public var stuck: Int? { rows == 0 && next < requests.count ? next : nil }

    /// A slot for the next token of a running row; promised at admission, so always there.
    public mutating func slotForToken() -> Int32 {
        guard promised > 0, let slot = pool.take(1) else { preconditionFailure("a promised slot is missing") }
        promised -= 1
        return slot[0]
    }

    /// A row of `request` ended having taken `taken` token slots.
    public mutating func finish(request: Int, taken: [Int32]) {
        promised -= requests[request].sampling.maxTokens - taken.count
        pool.give(back: taken)
        rows -= 1
        guard let left = running[request] else { preconditionFailure("request \(request) does not run") }
        running[request] = left - 1
        if left == 1 {
            running[request] = nil
            if let slots = ownSlots.removeValue(forKey: request) { pool.give(back: slots) }
        }
    }

    /// Slots in use or promised beyond the common prefix; zero when all is done.
    public var slotsHeld: Int { pool.capacity - pool.freeCount - prefixSlots.count + promised }
}
