@testable import RolloutCore

/// A model whose key of a token is a digest of everything up to it, so that a block read by the wrong sequence, too early or too
/// late, shows; and whose next token is a digest too, so that outputs must not depend on the schedule.
struct SimulatedModel {
    let blockSize: Int
    private var device: [UInt64]
    private var host: [UInt64]
    private var drawn: [Int: [Int32]] = [:]

    init(_ limits: SchedulerLimits) {
        blockSize = limits.blockSize
        device = Array(repeating: 0, count: limits.blocks * limits.blockSize)
        if case .swap(let blocks) = limits.preemption {
            host = Array(repeating: 0, count: blocks * limits.blockSize)
        } else {
            host = []
        }
    }

    static func digest(_ before: UInt64, _ token: Int32) -> UInt64 {
        SplitMix64.mix(before ^ UInt64(UInt32(bitPattern: token)) &+ 1)
    }
    static func digests(_ tokens: [Int32]) -> [UInt64] {
        var state: UInt64 = 7
        return tokens.map {
            state = digest(state, $0)
            return state
        }
    }
    /// Few kinds of tokens, so that prefixes coincide; 0 is what stop tests end at.
    static func token(_ digest: UInt64, request: Int, sample: Int) -> Int32 {
        Int32(SplitMix64.seed(digest, UInt64(request), UInt64(sample)) % 23)
    }

    /// What a plain loop gives.
    static func reference(_ request: RolloutRequest, id: Int, sample: Int) -> (tokens: [Int32], reason: FinishReason) {
        var all = request.prompt, new: [Int32] = []
        while true {
            let token = token(digests(all)[all.count - 1], request: id, sample: sample)
            all.append(token)
            new.append(token)
            if request.sampling.stopTokenIDs.contains(token) { return (new, .stop) }
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
        for (work, tokens) in zip(plan.work, known) {
            // The inputs: known, or the one that an earlier step drew.
            var inputs = Array(tokens.dropFirst(work.start).prefix(work.count - work.drafts.count))
            if case .drawn(let step, let draw) = work.input {
                guard let earlier = drawn[step] else { throw Broken("step \(step) has not run") }
                inputs = [earlier[draw]]
            }
            inputs += work.drafts
            guard inputs.count == work.count else { throw Broken("tokens of \(work) are missing") }
            // Tokens drawn by steps still under way at planning are not known: what they hold shows in what comes of it.
            for (position, digest) in Self.digests(tokens).prefix(work.start).enumerated()
            where device[place(work, position)] != digest {
                throw Broken("position \(position) of \(work) holds another's key")
            }
            var state: UInt64 = work.start == 0 ? 7 : device[place(work, work.start - 1)]
            for (offset, token) in inputs.enumerated() {
                state = Self.digest(state, token)
                device[place(work, work.start + offset)] = state
            }
            for draw in plan.draws[work.draws] {
                let state = device[place(work, work.start + draw.offset)]
                outcomes.append(
                    DrawOutcome(token: Self.token(state, request: draw.request, sample: draw.sample)))
            }
        }
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
