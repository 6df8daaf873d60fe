/// One sample of a request while it is on its way.
struct ScheduledSequence: Sendable {
    enum Phase: Sendable, Hashable { case free, waiting, running, swapped, finished }

    var phase = Phase.free
    var generation: Int32 = 0
    /// While it runs: its place among those that run; -1 else.
    var row: Int32 = -1
    /// Steps under way that compute this sequence.
    var inFlight = 0
    /// The newest step that computes it or draws for it.
    var lastStep = -1
    /// Prompt and new tokens whose ids are known.
    var tokens: [Int32] = []
    /// New tokens drawn by steps whose outcome is not known yet.
    var pending = 0
    /// Which draw of which step gives the newest pending token.
    var newest = (step: 0, draw: 0)
    /// Tokens whose keys and values are in the cache, or will be when the steps under way end.
    var computed = 0
    var blocks: [Int32] = []
    /// Leading blocks that are the same as in the last work that named its row.
    var announced = 0
    /// While swapped: the host block of each block that is not resident; -1 where the device still holds it.
    var hostBlocks: [Int32] = []
    var promptCount = 0
    /// Prompt and new tokens that it may have.
    var maxLength = 0
    /// Place of its request.
    var request = 0
    var sample = 0
    var priority = 0, arrival = 0
    /// Blocks that are registered by content, and the key of the last.
    var registered = 0
    var key = PrefixKey.root
    /// Computed in part by older weights: what it holds must not be found by others.
    var isMixed = false
    /// Samples of the request that fork off when the prompt is computed.
    var forksWaiting = 0
    /// What it may draft from; nil where it decodes token by token.
    var lookup: DraftLookup?

    /// Tokens known or drawn.
    var length: Int { tokens.count + pending }
    /// Where it stands in line: lower comes first.
    var rank: Rank { Rank(priority: priority, arrival: arrival, sample: sample) }
    /// No step under way computes it or draws for it.
    var isIdle: Bool { inFlight == 0 && pending == 0 }

    /// Forgets what it had in the cache; the blocks are the caller's to give back.
    mutating func forgetCache() {
        blocks = []
        computed = 0
        registered = 0
        key = .root
        isMixed = false
    }

    struct Rank: Comparable, Sendable {
        var priority, arrival, sample: Int
        static func < (a: Rank, b: Rank) -> Bool {
            (a.priority, a.arrival, a.sample) < (b.priority, b.arrival, b.sample)
        }
    }
}

/// A request of which samples are still to come.
struct ScheduledRequest: Sendable {
    /// The caller's.
    var id: Int
    var n: Int
    /// Ids that end a sequence, in order, once it has `minLength` tokens.
    var stops: [Int32]
    var minLength: Int
    var samplesLeft: Int
    var members: [Int32]

    func isStop(_ token: Int32, atLength length: Int) -> Bool {
        guard length >= minLength else { return false }
        // Few, and in order.
        var low = 0, high = stops.count
        while low < high {
            let middle = (low + high) / 2
            if stops[middle] < token { low = middle + 1 } else { high = middle }
        }
        return low < stops.count && stops[low] == token
    }
}
