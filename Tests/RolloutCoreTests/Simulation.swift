@testable import RolloutCore

struct Random {
    var state: UInt64
    mutating func int(_ range: ClosedRange<Int>) -> Int {
        state = SplitMix64.mix(state)
        return range.lowerBound + Int(state % UInt64(range.count))
    }
    mutating func flag(_ percent: Int) -> Bool { int(1...100) <= percent }
    mutating func element<T>(_ all: [T]) -> T { all[int(0...all.count - 1)] }
}

/// A stream of requests, the limits that it meets, and what happens on the way.
struct Scenario {
    var limits: SchedulerLimits
    var requests: [(request: RolloutRequest, priority: Int, arrivesAt: Int, abortsAt: Int?)] = []
    /// Steps planned before the first of them is complete.
    var ahead: Int
    var weightsChangeAt: Set<Int> = []
    var cacheDropsAt: Set<Int> = []
    /// Running sequences from a tick on.
    var runningFrom: [Int: Int] = [:]
    /// Requests that do not take part in speculation.
    var undrafted: Set<Int> = []
    var speech = SimulatedModel.Speech()

    init(_ random: inout Random) {
        let size = random.element([1, 2, 4, 16])
        let blocks = random.int(6...60)
        let rows = random.int(1...12)
        let swap: SchedulerLimits.Preemption = random.flag(50) ? .swap(hostBlocks: random.int(0...30)) : .recompute
        limits = SchedulerLimits(
            blocks: blocks, blockSize: size, tokensPerStep: max(rows, random.int(1...80)), runningSequences: rows,
            prefillChunk: random.flag(50) ? random.int(1...40) : .max, prefixCaching: random.flag(60),
            preemption: swap)
        ahead = random.int(1...3)
        let common = (0..<random.int(0...20)).map { _ in Int32(random.int(0...22)) }
        for _ in 0..<random.int(1...14) {
            var prompt = random.flag(60) ? common : []
            prompt += (0..<random.int(1...25)).map { _ in Int32(random.int(0...22)) }
            var most = random.int(1...30)
            // What could never fit is refused, and has its own test.
            let room = blocks * size
            if prompt.count > room { prompt = Array(prompt.prefix(room)) }
            most = min(most, room - prompt.count + 1)
            requests.append(
                (
                    RolloutRequest(
                        prompt: prompt,
                        sampling: SamplingParameters(
                            n: random.int(1...6), maxTokens: most, stopTokenIDs: random.flag(50) ? [0] : [])),
                    random.int(0...2), random.flag(70) ? 0 : random.int(0...30),
                    random.flag(8) ? random.int(0...30) : nil
                ))
        }
        if random.flag(30) { weightsChangeAt = Set((0..<3).map { _ in random.int(1...40) }) }
    }

    mutating func speculate(_ random: inout Random) {
        let shortest = random.int(1...3)
        limits.speculation = Speculation(
            maxDraft: random.int(1...6), minNgram: shortest, maxNgram: shortest + random.int(0...2))
        speech.repeats = true
        for id in requests.indices {
            if random.flag(20) { undrafted.insert(id) }
            if random.flag(40) { speech.stoppedByCaller.insert(id) }
        }
    }

    mutating func interrupt(_ random: inout Random) {
        cacheDropsAt = Set((0..<random.int(0...3)).map { _ in random.int(1...40) })
        for _ in 0..<random.int(0...3) {
            runningFrom[random.int(1...40)] = random.int(1...min(12, limits.tokensPerStep))
        }
    }
}

/// Plays a scenario through a scheduler and a simulated model, looking at the books after each move.
struct Simulation {
    typealias Broken = SimulatedModel.Broken
    let scenario: Scenario
    var scheduler: Scheduler
    private var model: SimulatedModel
    private var underWay: [(plan: StepPlan, known: [[Int32]])] = []
    private var finished: [FinishedSequence] = []
    private var tick = 0
    private(set) var copies = 0

    init(_ scenario: Scenario) throws {
        self.scenario = scenario
        scheduler = try Scheduler(scenario.limits)
        model = SimulatedModel(scenario.limits, scenario.speech)
    }

    mutating func run() throws {
        var arrived = 0, idle = 0
        let order = scenario.requests.indices.sorted {
            (scenario.requests[$0].arrivesAt, $0) < (scenario.requests[$1].arrivesAt, $1)
        }
        while arrived < order.count || !scheduler.isDone || !underWay.isEmpty {
            tick += 1
            while arrived < order.count, scenario.requests[order[arrived]].arrivesAt < tick {
                let id = order[arrived], next = scenario.requests[id]
                try scheduler.add(
                    next.request, id: id, priority: next.priority, speculates: !scenario.undrafted.contains(id))
                arrived += 1
            }
            try interrupt()
            if underWay.count < scenario.ahead, let plan = try plan() {
                idle = 0
                underWay.append((plan, plan.work.map { scheduler.tokens(of: $0.sequence) }))
            } else if !underWay.isEmpty {
                idle = 0
                try completeOne()
            } else if arrived == order.count || scenario.requests[order[arrived]].arrivesAt > tick {
                idle += 1
                if idle > 100 { throw Broken("nothing runs, and it is not done") }
            }
            try check()
            if tick > 100_000 { throw Broken("it does not end") }
        }
        guard scheduler.pool.freeCount == scenario.limits.blocks else { throw Broken("a block is lost") }
        try compare()
    }

    private func check() throws {
        if let broken = scheduler.brokenInvariant() { throw Broken("at \(tick): " + broken) }
    }

    private mutating func interrupt() throws {
        for (id, request) in scenario.requests.enumerated() where request.abortsAt == tick {
            finished += scheduler.abort(id)
            try check()
        }
        if scenario.weightsChangeAt.contains(tick) { scheduler.weightsChanged() }
        if let running = scenario.runningFrom[tick] { try scheduler.setLimits(runningSequences: running) }
        guard scenario.cacheDropsAt.contains(tick) else { return }
        while !underWay.isEmpty { try completeOne() }
        scheduler.dropCache()
        try check()
        guard scheduler.pool.freeCount == scenario.limits.blocks, scheduler.runningCount == 0,
            scheduler.pool.findableCount == 0
        else { throw Broken("something is left of the cache") }
        model.loseCache()
    }

    private mutating func plan() throws -> StepPlan? {
        let running = scheduler.runningCount
        guard let plan = scheduler.next() else { return nil }
        guard plan.tokens <= scheduler.limits.tokensPerStep else { throw Broken("over budget") }
        guard scheduler.runningCount <= max(running, scheduler.limits.runningSequences) else {
            throw Broken("\(scheduler.runningCount) sequences run")
        }
        guard plan.tokens == plan.work.reduce(0, { $0 + $1.count }) else { throw Broken("miscounted tokens") }
        for work in plan.work where !scenario.limits.cutsPrompts {
            let length = scheduler.tokens(of: work.sequence).count
            guard length > scheduler.limits.tokensPerStep || work.start + work.count >= length else {
                throw Broken("\(work) cuts \(length) tokens")
            }
        }
        for work in plan.work where !work.drafts.isEmpty {
            guard work.input == .known, work.draws.count == 1 + work.drafts.count,
                plan.draws[work.draws].map(\.offset) == Array(0..<work.count)
            else { throw Broken("not every position of \(work) draws") }
        }
        copies += plan.copies.count
        return plan
    }

    private mutating func completeOne() throws {
        let (plan, known) = underWay.removeFirst()
        finished += scheduler.complete(plan, try model.run(plan, known: known))
    }

    private func compare() throws {
        var seen: Set<[Int]> = []
        for one in finished {
            guard seen.insert([one.request, one.sample]).inserted else {
                throw Broken("request \(one.request) sample \(one.sample) ended twice")
            }
            let wanted = model.reference(
                scenario.requests[one.request].request, id: one.request, sample: one.sample)
            let agrees =
                one.reason == .abort
                ? scenario.requests[one.request].abortsAt != nil && wanted.tokens.starts(with: one.tokens)
                : one.tokens == wanted.tokens && one.reason == wanted.reason
            guard agrees else {
                throw Broken("request \(one.request) sample \(one.sample): \(one), not \(wanted)")
            }
        }
        let all = scenario.requests.reduce(0) { $0 + $1.request.sampling.n }
        guard seen.count == all else { throw Broken("\(seen.count) of \(all) samples ended") }
    }
}
