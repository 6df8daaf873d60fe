@testable import RolloutCore

/// A model whose key of a token is a digest of everything up to it, so that a block read by the wrong sequence, too early or too
/// late, shows; and whose next token is a digest too, so that outputs must not depend on the schedule.
struct SimulatedModel {
    /// What it says, and where its caller stops it.
    struct Speech {
        /// Most tokens follow from the one before alone, so that answers come to repeat themselves.
        var repeats = false
        /// Requests that their caller ends at a token 1, as a stop text would.
        var stoppedByCaller: Set<Int> = []
    }

    let blockSize: Int
    let speech: Speech
    private var device: [UInt64]
    private var host: [UInt64]
    private var drawn: [Int: [Int32]] = [:]
    /// As an engine keeps them on the device: the blocks of each row.
    private var tables: [Int32: [Int32]] = [:]

    init(_ limits: SchedulerLimits, _ speech: Speech = Speech()) {
        blockSize = limits.blockSize
        self.speech = speech
        device = Array(repeating: 0, count: limits.blocks * limits.blockSize)
        if case .swap(let blocks) = limits.preemption {
            host = Array(repeating: 0, count: blocks * limits.blockSize)
        } else {
            host = []
        }
    }

    /// What was in the cache is gone.
    mutating func loseCache() {
        for place in device.indices { device[place] = 1 }
        for place in host.indices { host[place] = 1 }
    }

    static func digest(_ before: UInt64, _ token: Int32) -> UInt64 {
        SplitMix64.mix(before ^ UInt64(UInt32(bitPattern: token)) &+ 1)
    }
    static func digests(_ tokens: some Sequence<Int32>) -> [UInt64] {
        var state: UInt64 = 7
        return tokens.map {
            state = digest(state, $0)
            return state
        }
    }

    /// Few kinds of tokens, so that prefixes coincide; 0 is what stop tests end at.
    func outcome(_ digest: UInt64, last: Int32, request: Int, sample: Int) -> DrawOutcome {
        var seed = SplitMix64.seed(digest, UInt64(request), UInt64(sample))
        if speech.repeats, seed % 16 != 0 { seed = SplitMix64.seed(UInt64(last), UInt64(request)) }
        let token = Int32((seed >> 4) % 23)
        return DrawOutcome(token: token, finish: token == 1 && speech.stoppedByCaller.contains(request) ? .stop : nil)
    }

    /// What a plain loop gives.
    func reference(_ request: RolloutRequest, id: Int, sample: Int) -> (tokens: [Int32], reason: FinishReason) {
        var last: Int32 = 0, state: UInt64 = 7, new: [Int32] = []
        for token in request.prompt {
            state = Self.digest(state, token)
            last = token
        }
        while true {
            let outcome = outcome(state, last: last, request: id, sample: sample)
            last = outcome.token
            state = Self.digest(state, last)
            new.append(last)
            if let reason = outcome.finish { return (new, reason) }
            if request.sampling.stopTokenIDs.contains(last) { return (new, .stop) }
            if new.count == request.sampling.maxTokens { return (new, .length) }
        }
    }

    /// Runs a step as an engine would, with what the plan says and nothing else. `known` are the sequences' tokens when the step
    /// was planned.
    mutating func run(_ plan: StepPlan, known: [[Int32]]) throws -> [DrawOutcome] {
        func copy(_ from: [UInt64], _ move: StepPlan.Move, _ to: inout [UInt64]) {
            for offset in 0..<blockSize {
                to[Int(move.to) * blockSize + offset] = from[Int(move.from) * blockSize + offset]
            }
        }
        for move in plan.swapsOut { copy(device, move, &host) }
        for move in plan.swapsIn { copy(host, move, &device) }
        for move in plan.copies { copy(device, move, &device) }
        var outcomes: [DrawOutcome] = []
        guard Set(plan.work.map(\.row)).count == plan.work.count else { throw Broken("a row has two works") }
        for (work, tokens) in zip(plan.work, known) {
            let table = (tables[work.row] ?? []).prefix(work.firstChangedBlock) + work.blocks[work.firstChangedBlock...]
            guard table.elementsEqual(work.blocks), work.blocks.count == (work.start + work.count - 1) / blockSize + 1
            else { throw Broken("the row's blocks are \(table), those of \(work) others") }
            tables[work.row] = Array(table)
            // The inputs: known, guessed, or the one that an earlier step drew.
            var inputs = tokens.dropFirst(work.start).prefix(work.count - work.drafts.count) + work.drafts
            if case .drawn(let step, let draw) = work.input {
                guard let earlier = drawn[step], work.drafts.isEmpty else { throw Broken("step \(step) has not run") }
                inputs = [earlier[draw]]
            }
            guard inputs.count == work.count else { throw Broken("tokens of \(work) are missing") }
            // Tokens drawn by steps still under way at planning are not known: what they hold shows in what comes of it.
            for (position, digest) in Self.digests(tokens.prefix(work.start)).enumerated()
            where device[place(work, position)] != digest {
                throw Broken("position \(position) of \(work) holds another's key")
            }
            var states: [UInt64] = []
            for (offset, token) in inputs.enumerated() {
                let before =
                    states.last ?? (work.start == 0 ? 7 : device[place(work, work.start - 1)])
                states.append(Self.digest(before, token))
                device[place(work, work.start + offset)] = states[offset]
            }
            guard work.draws.lowerBound == outcomes.count else { throw Broken("draws of \(work) are out of order") }
            for draw in plan.draws[work.draws] {
                outcomes.append(
                    outcome(
                        states[draw.offset], last: inputs[inputs.startIndex + draw.offset], request: draw.request,
                        sample: draw.sample))
            }
        }
        guard outcomes.count == plan.drawCount else { throw Broken("\(plan.drawCount) draws, not all of them of work") }
        drawn[plan.step] = outcomes.map(\.token)
        drawn[plan.step - 8] = nil
        return outcomes
    }

    private func place(_ work: StepPlan.Work, _ position: Int) -> Int {
        Int(work.blocks[position / blockSize]) * blockSize + position % blockSize
    }

    struct Broken: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }
}
