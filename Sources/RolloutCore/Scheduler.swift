import HeapModule

/// Continuous batching over a paged cache: each step decodes what runs and spends the rest of its token budget on prompts, in
/// chunks. Deterministic, free of tensors, and it plans ahead: a step may be planned while the ones before it still run.
///
/// Order is by priority, then arrival. What runs comes first; when its next token finds no block, the last in order yields
/// (``SchedulerLimits/Preemption``), so the first in order always goes on and nobody waits for ever. The samples of one prompt
/// share its blocks; the block that prompt and answer share is copied when an answer first writes to it. After Kwon et al. 2023
/// (vLLM) and Agrawal et al. 2024 (Sarathi, chunked prefill).
public struct Scheduler: Sendable {
    public internal(set) var limits: SchedulerLimits
    var pool: BlockPool
    var freeHostBlocks: [Int32]
    /// By index; those that are free wait in `freeIndices`.
    var sequences: [ScheduledSequence] = []
    var freeIndices: [Int32] = []
    var requests: [ScheduledRequest] = []
    private var freeRequests: [Int] = []
    private var requestPlaces: [Int: Int] = [:]
    /// In order of rank.
    var running: [Int32] = []
    var swapped: [Int32] = []
    var waiting = Heap<Waiting>()
    private var freeRows: [Int32] = []
    private(set) var rowCount: Int32 = 0
    /// What may run: the limit, or those that ran when it was lowered and have not ended since.
    private(set) var runningCeiling: Int
    var planned = 0, completed = 0
    private var arrivals = 0
    /// Samples that have not ended.
    private var samplesLeft = 0
    public internal(set) var statistics = SchedulerStatistics()

    struct Waiting: Comparable, Sendable {
        var rank: ScheduledSequence.Rank
        var index, generation: Int32
        static func < (a: Waiting, b: Waiting) -> Bool { a.rank < b.rank }
        static func == (a: Waiting, b: Waiting) -> Bool { a.rank == b.rank }
    }

    /// - Throws: ``SchedulerError`` `badLimits`.
    public init(_ limits: SchedulerLimits) throws(SchedulerError) {
        try limits.check()
        self.limits = limits
        runningCeiling = limits.runningSequences
        pool = BlockPool(capacity: limits.blocks)
        if case .swap(let blocks) = limits.preemption {
            freeHostBlocks = (0..<Int32(blocks)).reversed()
        } else {
            freeHostBlocks = []
        }
    }

    /// Changes limits from the next step on. Where more run than may, they go on and nobody joins them.
    /// - Throws: ``SchedulerError`` `badLimits`; nothing has changed then.
    public mutating func setLimits(
        runningSequences: Int? = nil, tokensPerStep: Int? = nil, prefillChunk: Int? = nil
    ) throws(SchedulerError) {
        var changed = limits
        changed.runningSequences = runningSequences ?? changed.runningSequences
        changed.tokensPerStep = tokensPerStep ?? changed.tokensPerStep
        changed.prefillChunk = prefillChunk ?? changed.prefillChunk
        try changed.check()
        limits = changed
        runningCeiling = max(limits.runningSequences, running.count)
    }

    // MARK: - Requests

    /// Puts a request in line. `id` is the caller's own, unique among those that are not finished; a lower `priority` goes
    /// first. `speculates` off keeps it from drafts where the limits allow them: how its tokens are drawn depends on the tokens
    /// before in a way that the drafts of one step cannot follow, as penalties do.
    /// - Throws: ``SchedulerError`` for one that can never run.
    public mutating func add(
        _ request: RolloutRequest, id: Int, priority: Int = 0, speculates: Bool = true
    ) throws(SchedulerError) {
        let sampling = request.sampling
        guard !request.prompt.isEmpty, sampling.n > 0, sampling.maxTokens > 0, requestPlaces[id] == nil else {
            throw SchedulerError(
                code: .badRequest,
                message: "request \(id) has \(request.prompt.count) prompt tokens, n \(sampling.n), maxTokens "
                    + "\(sampling.maxTokens); each must be 1 or more and the id new")
        }
        // The last token is never fed back, so it needs no room.
        let needed = blocks(for: request.prompt.count + sampling.maxTokens - 1)
        guard needed <= limits.blocks else {
            throw SchedulerError(
                code: .tooLong,
                message: "request \(id) needs \(needed) blocks of \(limits.blockSize) tokens, the cache has "
                    + "\(limits.blocks); shorten it or give the cache more memory")
        }
        let index = makeSequence(), place = freeRequests.popLast() ?? requests.count
        let state = ScheduledRequest(
            id: id, n: sampling.n, stops: sampling.ignoreEOS ? [] : sampling.stopTokenIDs.sorted(),
            minLength: request.prompt.count + sampling.minTokens, samplesLeft: sampling.n,
            members: [index])
        if place == requests.count { requests.append(state) } else { requests[place] = state }
        requestPlaces[id] = place
        samplesLeft += sampling.n
        sequences[Int(index)].request = place
        sequences[Int(index)].priority = priority
        sequences[Int(index)].arrival = arrivals
        sequences[Int(index)].tokens = request.prompt
        sequences[Int(index)].promptCount = request.prompt.count
        sequences[Int(index)].maxLength = request.prompt.count + sampling.maxTokens
        sequences[Int(index)].forksWaiting = sampling.n - 1
        if speculates, let speculation = limits.speculation {
            sequences[Int(index)].lookup = DraftLookup(speculation)
        }
        arrivals += 1
        enqueue(index)
    }

    /// Ends what is left of a request; gives the samples that it ended, with what they had.
    public mutating func abort(_ id: Int) -> [FinishedSequence] {
        guard let place = requestPlaces[id] else { return [] }
        var ended: [FinishedSequence] = []
        for index in requests[place].members { finish(index, .abort, &ended) }
        return ended
    }

    public var isDone: Bool { samplesLeft == 0 }
    public var runningCount: Int { running.count }
    public var waitingCount: Int { samplesLeft - running.count - swapped.count }
    public var hasStepsUnderWay: Bool { completed < planned }

    /// Known tokens of a sequence that a plan names. Shared with the scheduler: keeping it costs a copy later.
    public func tokens(of id: SequenceID) -> [Int32] {
        precondition(sequences[Int(id.index)].generation == id.generation, "a sequence that is no more")
        return sequences[Int(id.index)].tokens
    }

    /// The caller's id of the request of a sequence that a plan names.
    public func request(of id: SequenceID) -> Int { requests[sequences[Int(id.index)].request].id }

    /// Tokens of the prompt of a sequence that a plan names.
    public func promptCount(of id: SequenceID) -> Int { sequences[Int(id.index)].promptCount }

    /// The weights have changed: nothing computed so far may be found by content. What runs goes on with what it has.
    public mutating func weightsChanged() {
        pool.forgetContents()
        for index in sequences.indices where sequences[index].computed > 0 { sequences[index].isMixed = true }
    }

    // MARK: - Helpers

    mutating func makeSequence() -> Int32 {
        let index = freeIndices.popLast() ?? Int32(sequences.count)
        if index == sequences.count { sequences.append(ScheduledSequence()) }
        sequences[Int(index)].phase = .waiting
        return index
    }

    mutating func enqueue(_ index: Int32) {
        sequences[Int(index)].phase = .waiting
        waiting.insert(
            Waiting(
                rank: sequences[Int(index)].rank, index: index, generation: sequences[Int(index)].generation))
    }

    /// Gives it a row and a place among those that run.
    mutating func enterRunning(_ index: Int32) {
        sequences[Int(index)].phase = .running
        sequences[Int(index)].announced = 0
        if let row = freeRows.popLast() {
            sequences[Int(index)].row = row
        } else {
            sequences[Int(index)].row = rowCount
            rowCount += 1
        }
        insert(index, into: &running)
    }

    mutating func leaveRunning(_ index: Int32) {
        running.remove(at: place(of: index, in: running))
        freeRows.append(sequences[Int(index)].row)
        sequences[Int(index)].row = -1
        runningCeiling = max(limits.runningSequences, min(runningCeiling, running.count))
    }

    /// `count` samples of a request have ended, `index` the sequence that stood for them.
    mutating func endSamples(of index: Int32, _ count: Int) {
        let place = sequences[Int(index)].request
        samplesLeft -= count
        requests[place].samplesLeft -= count
        if let member = requests[place].members.firstIndex(of: index) {
            requests[place].members.swapAt(member, requests[place].members.count - 1)
            requests[place].members.removeLast()
        }
        guard requests[place].samplesLeft == 0 else { return }
        requestPlaces[requests[place].id] = nil
        requests[place].members = []
        freeRequests.append(place)
    }

    func id(_ index: Int32) -> SequenceID {
        SequenceID(index: index, generation: sequences[Int(index)].generation)
    }

    func blocks(for tokens: Int) -> Int { (tokens + limits.blockSize - 1) / limits.blockSize }

    /// Inserts by rank.
    func insert(_ index: Int32, into line: inout [Int32]) {
        line.insert(index, at: place(of: index, in: line))
    }

    /// Where it is in a line, or would be.
    func place(of index: Int32, in line: [Int32]) -> Int {
        let rank = sequences[Int(index)].rank
        var low = 0, high = line.count
        while low < high {
            let middle = (low + high) / 2
            if sequences[Int(line[middle])].rank < rank { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
