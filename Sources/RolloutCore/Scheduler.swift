import HeapModule

/// Continuous batching over a paged cache: each step decodes what runs and spends the rest of its token budget on prompts, in
/// chunks. Deterministic, free of tensors, and it plans ahead: a step may be planned while the ones before it still run.
///
/// Order is by priority, then arrival. What runs comes first; when its next token finds no block, the last in order yields
/// (``SchedulerLimits/Preemption``), so the first in order always goes on and nobody waits for ever. The samples of one prompt
/// share its blocks; the block that prompt and answer share is copied when an answer first writes to it. After Kwon et al. 2023
/// (vLLM) and Agrawal et al. 2024 (Sarathi, chunked prefill).
public struct Scheduler: Sendable {
    public let limits: SchedulerLimits
    var pool: BlockPool
    var freeHostBlocks: [Int32]
    var sequences: [ScheduledSequence] = []
    private var freeIndices: [Int32] = []
    var requests: [Int: Request] = [:]
    /// In order of rank.
    var running: [Int32] = []
    var swapped: [Int32] = []
    var waiting = Heap<Waiting>()
    private var underWay: [Int: StepPlan] = [:]
    private var steps = 0
    private var arrivals = 0
    public internal(set) var statistics = SchedulerStatistics()

    struct Request: Sendable {
        var sampling: SamplingParameters
        var samplesLeft: Int
        var members: [Int32] = []
    }

    struct Waiting: Comparable, Sendable {
        var rank: ScheduledSequence.Rank
        var index, generation: Int32
        static func < (a: Waiting, b: Waiting) -> Bool { a.rank < b.rank }
        static func == (a: Waiting, b: Waiting) -> Bool { a.rank == b.rank }
    }

    /// - Throws: ``SchedulerError`` `badLimits`.
    public init(_ limits: SchedulerLimits) throws(SchedulerError) {
        guard limits.blocks > 0, limits.blockSize > 0, limits.tokensPerStep > 0, limits.runningSequences > 0,
            limits.prefillChunk > 0
        else { throw SchedulerError(code: .badLimits, message: "every limit must be 1 or more: \(limits)") }
        guard limits.tokensPerStep >= limits.runningSequences else {
            throw SchedulerError(
                code: .badLimits,
                message: "\(limits.runningSequences) running sequences do not fit a step of \(limits.tokensPerStep) "
                    + "tokens; raise the step's tokens or lower the sequences")
        }
        self.limits = limits
        pool = BlockPool(capacity: limits.blocks)
        if case .swap(let blocks) = limits.preemption {
            freeHostBlocks = (0..<Int32(blocks)).reversed()
        } else {
            freeHostBlocks = []
        }
    }

    // MARK: - Requests

    /// Puts a request in line. `id` is the caller's own, unique among those that are not finished; a lower `priority` goes first.
    /// - Throws: ``SchedulerError`` for one that can never run.
    public mutating func add(_ request: RolloutRequest, id: Int, priority: Int = 0) throws(SchedulerError) {
        let sampling = request.sampling
        guard !request.prompt.isEmpty, sampling.n > 0, sampling.maxTokens > 0, requests[id] == nil else {
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
        requests[id] = Request(sampling: sampling, samplesLeft: sampling.n)
        let index = makeSequence()
        sequences[Int(index)].request = id
        sequences[Int(index)].priority = priority
        sequences[Int(index)].arrival = arrivals
        sequences[Int(index)].tokens = request.prompt
        sequences[Int(index)].promptCount = request.prompt.count
        sequences[Int(index)].forksWaiting = sampling.n - 1
        arrivals += 1
        requests[id]?.members = [index]
        enqueue(index)
    }

    /// Ends what is left of a request; gives the samples that it ended, with what they had.
    public mutating func abort(_ id: Int) -> [FinishedSequence] {
        guard let request = requests[id] else { return [] }
        var ended: [FinishedSequence] = []
        for index in request.members { ended += finish(index, .abort) }
        return ended
    }

    public var isDone: Bool { requests.isEmpty }
    public var runningCount: Int { running.count }
    public var waitingCount: Int { requests.values.reduce(0) { $0 + $1.samplesLeft } - running.count - swapped.count }
    public var hasStepsUnderWay: Bool { !underWay.isEmpty }

    /// Known tokens of a sequence that a plan names.
    public func tokens(of id: SequenceID) -> [Int32] {
        precondition(sequences[Int(id.index)].generation == id.generation, "a sequence that is no more")
        return sequences[Int(id.index)].tokens
    }

    /// Tokens of the prompt of a sequence that a plan names.
    public func promptCount(of id: SequenceID) -> Int { sequences[Int(id.index)].promptCount }

    /// The weights have changed: nothing computed so far may be found by content. What runs goes on with what it has.
    public mutating func weightsChanged() {
        pool.forgetContents()
        for index in sequences.indices where sequences[index].computed > 0 { sequences[index].isMixed = true }
    }

    // MARK: - Steps

    /// The next step; nil when nothing can be computed before a step under way is complete, or nothing is left.
    public mutating func next() -> StepPlan? {
        var plan = StepPlan(step: steps)
        let yields = statistics.yields
        planRunning(&plan)
        // What had to yield just now would only come back to yield again.
        if statistics.yields == yields {
            resumeSwapped(&plan)
            admitWaiting(&plan)
        }
        guard !plan.isEmpty else { return nil }
        steps += 1
        statistics.steps += 1
        statistics.tokens += plan.tokens
        underWay[plan.step] = plan
        return plan
    }

    /// Takes a step's drawn tokens, in the order of the plan's draws; steps complete in the order they were planned.
    public mutating func complete(_ plan: StepPlan, _ outcomes: [DrawOutcome]) -> [FinishedSequence] {
        guard underWay.removeValue(forKey: plan.step) != nil, !underWay.keys.contains(where: { $0 < plan.step }) else {
            preconditionFailure("step \(plan.step) is not the first under way")
        }
        precondition(outcomes.count == plan.drawCount, "\(outcomes.count) tokens for \(plan.drawCount) draws")
        var ended: [FinishedSequence] = [], next = 0
        for work in plan.work {
            let index = work.sequence.index
            sequences[Int(index)].inFlight -= 1
            // Tokens that were not known when this step was planned; before the new ones, as what ends here can still be found.
            registerBlocks(index)
            for draw in work.draws {
                ended += take(outcomes[next], for: draw)
                next += 1
            }
            // Ended while this step was under way.
            if sequences[Int(index)].phase == .finished, sequences[Int(index)].inFlight == 0 { retire(index) }
        }
        return ended
    }

    private mutating func take(_ outcome: DrawOutcome, for draw: StepPlan.Draw) -> [FinishedSequence] {
        let index = Int(draw.sequence.index)
        guard sequences[index].generation == draw.sequence.generation else { return [] }
        sequences[index].pending -= 1
        guard sequences[index].phase != .finished else { return [] }
        sequences[index].tokens.append(outcome.token)
        guard let sampling = requests[draw.request]?.sampling else { return [] }
        let new = sequences[index].tokens.count - sequences[index].promptCount
        let reason: FinishReason? =
            outcome.finish ?? (sampling.stopTokenIDs.contains(outcome.token) ? .stop : nil)
            ?? (new >= sampling.maxTokens ? .length : nil)
        return reason.map { finish(draw.sequence.index, $0) } ?? []
    }

    // MARK: - Ends

    /// Ends a sequence, and those that were to fork off it. A step under way keeps its blocks until it is complete.
    private mutating func finish(_ index: Int32, _ reason: FinishReason) -> [FinishedSequence] {
        let sequence = sequences[Int(index)]
        guard sequence.phase != .finished, sequence.phase != .free else { return [] }
        var ended = [
            FinishedSequence(
                request: sequence.request, sample: sequence.sample,
                tokens: Array(sequence.tokens.dropFirst(sequence.promptCount)), reason: reason)
        ]
        for fork in 0..<sequence.forksWaiting {
            let sample = (requests[sequence.request]?.sampling.n ?? 0) - sequence.forksWaiting + fork
            ended.append(FinishedSequence(request: sequence.request, sample: sample, tokens: [], reason: reason))
        }
        sequences[Int(index)].forksWaiting = 0
        running.removeAll { $0 == index }
        swapped.removeAll { $0 == index }
        freeHostBlocks += sequence.hostBlocks.filter { $0 >= 0 }
        sequences[Int(index)].hostBlocks = []
        sequences[Int(index)].phase = .finished
        if let left = requests[sequence.request]?.samplesLeft {
            requests[sequence.request]?.samplesLeft = left - ended.count
            requests[sequence.request]?.members.removeAll { $0 == index }
            if left == ended.count { requests[sequence.request] = nil }
        }
        if sequence.inFlight == 0 { retire(index) }
        return ended
    }

    private mutating func retire(_ index: Int32) {
        for block in sequences[Int(index)].blocks where block >= 0 { pool.release(block) }
        let generation = sequences[Int(index)].generation
        sequences[Int(index)] = ScheduledSequence()
        sequences[Int(index)].generation = generation + 1
        freeIndices.append(index)
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

    func id(_ index: Int32) -> SequenceID {
        SequenceID(index: index, generation: sequences[Int(index)].generation)
    }

    func blocks(for tokens: Int) -> Int { (tokens + limits.blockSize - 1) / limits.blockSize }

    /// Inserts by rank.
    func insert(_ index: Int32, into line: inout [Int32]) {
        let rank = sequences[Int(index)].rank
        var low = 0, high = line.count
        while low < high {
            let middle = (low + high) / 2
            if sequences[Int(line[middle])].rank < rank { low = middle + 1 } else { high = middle }
        }
        line.insert(index, at: low)
    }

    /// Makes a sequence's full blocks findable whose tokens are known and computed, or will be by a planned step: a step writes the
    /// keys and values of all its tokens in a layer before any of them attends there.
    mutating func registerBlocks(_ index: Int32) {
        guard limits.prefixCaching else { return }
        let sequence = sequences[Int(index)]
        guard !sequence.isMixed, sequence.phase == .running else { return }
        let size = limits.blockSize
        let full = min(sequence.computed, sequence.tokens.count) / size
        guard full > sequence.registered else { return }
        var key = sequence.key
        for block in sequence.registered..<full {
            key = key.next(sequence.tokens[block * size..<(block + 1) * size])
            pool.register(sequence.blocks[block], as: key)
        }
        sequences[Int(index)].registered = full
        sequences[Int(index)].key = key
    }
}

/// What the scheduler has done so far.
public struct SchedulerStatistics: Sendable, Hashable {
    public var steps = 0
    /// Tokens computed, again counted where they were computed again.
    public var tokens = 0
    /// Prompt tokens found in the cache.
    public var foundTokens = 0
    public var recomputed = 0, swappedOut = 0, swappedIn = 0
    /// Times that a sequence gave up its blocks for one before it in line.
    public var yields: Int { recomputed + swappedOut }
}
