import Models
public import RolloutCore
import TensorCore

/// Generation under way: requests come and go while steps run. Each step is one pass of the model over the tokens that the
/// scheduler plans; on CUDA the next step is planned and launched while the device computes the one before it, whose tokens are
/// read late.
///
/// The weights may change between two calls of ``advance()``: what runs goes on under the new ones with the keys and values that
/// it has, and each token tells by ``GeneratedSample/weightVersions`` what drew it.
public final class RolloutSession {
    private struct Step {
        let plan: StepPlan
        let version: Int
        let result: StepResult?
        /// Where nothing is on its way: drawn at once.
        let drawn: (tokens: [Int32], logProbs: [Float])?
        /// The likeliest tokens of each draw, where any request asks.
        var top: [[TokenLogProb]] = []

        /// Waits for the tokens.
        func outcome() throws -> (tokens: [Int32], logProbs: [Float]) {
            if let drawn { return drawn }
            return try result?.wait() ?? ([], [])
        }
    }

    private let engine: RolloutEngine
    let runner: ModelRunner
    private let hostCache: KeyValueCache?
    var scheduler: Scheduler
    var requests: [Int: RunningRequest] = [:]
    /// How many of them adjust logits by what was drawn before: their tokens must be known before the next step is planned.
    private var adjusting = 0
    var adjustments = LogitAdjustmentList()
    private var version: Int
    /// The oldest step that is not complete; the one after it is ``newest``.
    private var oldest: Step?
    private var newest: Step?
    public private(set) var statistics = GenerationStatistics()
    public private(set) var firstToken: ContinuousClock.Instant?
    /// Sees every token as it is read and ends its sequence by giving false.
    public var onToken: ((GeneratedToken) -> Bool)?
    /// Sees every sample as it finishes, with its request's id and its index among the request's samples.
    public var onSample: ((_ request: Int, _ sample: Int, GeneratedSample) -> Void)?

    init(
        engine: RolloutEngine, runner: ModelRunner, hostCache: KeyValueCache?, limits: SchedulerLimits
    ) throws(SchedulerError) {
        self.engine = engine
        self.runner = runner
        self.hostCache = hostCache
        scheduler = try Scheduler(limits)
        version = engine.weightVersion
        statistics.cacheBytes = runner.cache.byteCount
    }

    /// Puts a request in line; `id` is the caller's own, unique among those that run. A lower `priority` goes first.
    public func add(_ request: RolloutRequest, id: Int, priority: Int = 0) throws {
        try engine.check(request, "request \(id)")
        if request.sampling.promptLogProbs != nil, scheduler.limits.prefixCaching {
            throw RolloutError(
                .badRequest,
                "request \(id) wants its prompt's log-probabilities in a session whose prompts share what they begin with: "
                    + "make the session with sharesPrefixes false")
        }
        let adjusts = request.sampling.adjustsLogits
        try scheduler.add(request, id: id, priority: priority, speculates: !adjusts)
        adjusting += adjusts ? 1 : 0
        requests[id] = RunningRequest(request, makeDetokenizer: engine.makeDetokenizer)
        statistics.promptTokens += request.prompt.count * request.sampling.n
    }

    /// Ends what is left of a request: its samples finish with what they have.
    public func abort(_ id: Int) { for ended in scheduler.abort(id) { finish(ended) } }

    public var isDone: Bool { scheduler.isDone }
    public var schedulerStatistics: SchedulerStatistics { scheduler.statistics }

    /// Launches the next step and completes the one before it; on the CPU the step itself. False when nothing is left to do.
    public func advance() throws -> Bool { try withNoGrad { try engine.sampling { try step() } } }

    private func step() throws -> Bool {
        if engine.weightVersion != version {
            version = engine.weightVersion
            scheduler.weightsChanged()
            try engine.renewCopies()
        }
        let plan = scheduler.next()
        if let plan {
            let step = try launch(plan)
            if oldest == nil { oldest = step } else { newest = step }
        } else if oldest == nil {
            guard scheduler.isDone else {
                throw RolloutError(.outOfSlots, "no request can run in \(scheduler.limits.blocks) blocks of the cache")
            }
            return false
        }
        // A step under way is completed once the next one is launched, or when nothing can be planned without it.
        if !runner.model.device.isCUDA || newest != nil || plan == nil { try completeOldest() }
        if adjusting > 0 { while oldest != nil { try completeOldest() } }
        return true
    }

    // MARK: - Steps

    private func launch(_ plan: StepPlan) throws -> Step {
        try runner.move(plan, host: hostCache)
        guard !plan.work.isEmpty else { return Step(plan: plan, version: version, result: nil, drawn: ([], [])) }
        let inputs = StepInputs(
            plan, tokens: { scheduler.tokens(of: $0) }, blockSize: runner.blockSize, padding: runner.padded,
            trash: runner.trash, tracksExtents: runner.tracksExtents
        ) { sampling($0) }
        count(plan)
        let promptsAsked = plan.work.indices.filter { wantsPrompt(plan.work[$0]) }
        runner.keepsHidden = !promptsAsked.isEmpty
        var logits_DV = try runner.logits(inputs)
        for index in promptsAsked { try recordPrompt(plan.work[index], firstToken: inputs.firstTokens[index]) }
        guard !inputs.draws.isEmpty else { return Step(plan: plan, version: version, result: nil, drawn: ([], [])) }
        if adjusting > 0 { logits_DV = try adjusted(logits_DV, inputs.draws) }
        guard runner.model.device.isCUDA else {
            let (tokens, logProbs) = try logits_DV.sample(inputs.draws.map { sampling($0) })
            let ids = tokens.map { Int32($0) }
            return Step(
                plan: plan, version: version, result: nil, drawn: (ids, logProbs),
                top: try top(logits_DV, inputs.draws, chosen: Tensor(ids)))
        }
        let result = try runner.buffer.draw(logits_DV, inputs.layout, filtered: inputs.isFiltered)
        return Step(
            plan: plan, version: version, result: result, drawn: nil,
            top: try top(logits_DV, inputs.draws, chosen: runner.buffer.drawn.narrowed(0, 0..<inputs.draws.count)))
    }

    private func sampling(_ draw: StepPlan.Draw) -> RowSampling {
        guard let sampling = requests[draw.request]?.sampling else { return RowSampling(temperature: 0) }
        return RowSampling(
            temperature: sampling.temperature, topK: sampling.topK, topP: sampling.topP, minP: sampling.minP,
            uniform: sampling.uniform(sample: draw.sample, position: draw.position))
    }

    private func count(_ plan: StepPlan) {
        var prompt = 0
        for work in plan.work {
            let promptCount = scheduler.promptCount(of: work.sequence)
            prompt += max(0, min(work.start + work.count, promptCount) - work.start)
        }
        statistics.prefilledTokens += prompt
        statistics.prefills += prompt > 0 ? 1 : 0
        statistics.decodeSteps += prompt < plan.tokens ? 1 : 0
    }

    private func completeOldest() throws {
        guard let step = oldest else { return }
        (oldest, newest) = (newest, nil)
        let plan = step.plan, version = step.version
        let (tokens, logProbs) = try step.outcome()
        firstToken = firstToken ?? (tokens.isEmpty ? nil : .now)
        var outcomes: [DrawOutcome] = []
        outcomes.reserveCapacity(tokens.count)
        for work in plan.work {
            // Of a sequence that drafts, only the draws up to the first wrong guess count, and none after its end.
            var counted = work.acceptedDraws { tokens[$0] }
            for index in work.draws {
                let draw = plan.draws[index]
                guard counted > 0 else {
                    outcomes.append(DrawOutcome(token: tokens[index]))
                    continue
                }
                let (outcome, isLast) = take(
                    draw, tokens[index], logProbs[index], version, step.top.isEmpty ? [] : step.top[index])
                outcomes.append(outcome)
                counted = isLast && !work.drafts.isEmpty ? 0 : counted - 1
            }
        }
        for ended in scheduler.complete(plan, outcomes) { finish(ended) }
    }

    /// - Returns: what the scheduler is told, and whether the token is its sequence's last.
    private func take(
        _ draw: StepPlan.Draw, _ token: Int32, _ logProb: Float, _ version: Int, _ top: [TokenLogProb]
    ) -> (DrawOutcome, isLast: Bool) {
        // Ended while this step was under way: nobody wants the token.
        guard requests[draw.request]?.samples[draw.sample].isFinished == false else {
            return (DrawOutcome(token: token), true)
        }
        statistics.generatedTokens += 1
        let stops =
            requests[draw.request]?.take(sample: draw.sample, token: token, logProb: logProb, version: version) ?? false
        if let count = requests[draw.request]?.sampling.logProbs, count > 0 {
            requests[draw.request]?.samples[draw.sample].top.append(Array(top.prefix(count)))
        }
        var finish: FinishReason? = stops ? .stop : nil
        let reason = finish ?? scheduler.finishReason(of: draw, token)
        if let onToken {
            let goesOn = onToken(
                GeneratedToken(request: draw.request, sample: draw.sample, token: token, finishReason: reason))
            if !goesOn, reason == nil { finish = .abort }
        }
        return (DrawOutcome(token: token, finish: finish), reason != nil || finish != nil)
    }

    private func finish(_ ended: FinishedSequence) {
        guard let sample = requests[ended.request]?.finish(sample: ended.sample, ended.reason) else { return }
        if let request = requests[ended.request], request.unfinished == 0 {
            adjusting -= request.sampling.adjustsLogits ? 1 : 0
            requests[ended.request] = nil
        }
        onSample?(ended.request, ended.sample, sample)
    }
}
