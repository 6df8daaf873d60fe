import RolloutCore
import Testing

/// A small generator, so that failures can be replayed.
struct Rolls {
    var state: UInt64
    mutating func below(_ bound: Int) -> Int {
        state = SplitMix64.mix(state)
        return Int(state % UInt64(bound))
    }
}

@Suite struct RolloutSchedulerTests {
    /// Random requests against random limits: every request runs once, no slot is held twice, none leaks, limits hold.
    @Test(arguments: 0..<200) func simulatedRunsKeepTheInvariants(seed: Int) {
        var rolls = Rolls(state: UInt64(seed))
        let prefix = [Int32](repeating: 1, count: rolls.below(20))
        let requests = (0..<1 + rolls.below(12)).map { _ in
            RolloutRequest(
                prompt: prefix + (0...rolls.below(9)).map { _ in Int32(rolls.below(50)) },
                sampling: SamplingParameters(n: 1 + rolls.below(4), maxTokens: 1 + rolls.below(6)))
        }
        let limits = RolloutScheduler.Limits(maxRows: 1 + rolls.below(8), maxPrefillTokens: 1 + rolls.below(30))
        let needed = RolloutScheduler.slotsNeeded(requests, limits: limits)
        var scheduler = RolloutScheduler(requests: requests, limits: limits, slots: needed + rolls.below(5))
        var running: [(request: Int, slots: [Int32])] = []
        var held: Set<Int32> = Set(scheduler.prefixSlots)
        var owners: [Int: (slots: [Int32], rows: Int)] = [:]
        var started: [Int] = []
        for _ in 0..<2000 where !scheduler.isDone {
            let wave = scheduler.admit()
            for admission in wave {
                started.append(admission.request)
                for slot in admission.ownSlots { #expect(held.insert(slot).inserted) }
                let n = requests[admission.request].sampling.n
                owners[admission.request] = (admission.ownSlots, n)
                for _ in 0..<n { running.append((admission.request, [])) }
                #expect(
                    admission.ownSlots.count == requests[admission.request].prompt.count - scheduler.commonPrefix)
            }
            #expect(wave.count == 1 || running.count <= limits.maxRows || scheduler.runningRows == running.count)
            #expect(!running.isEmpty, "nothing runs and nothing was admitted")
            // One decode step; then some rows end, at the latest at their limit.
            for index in running.indices {
                let slot = scheduler.slotForToken()
                #expect(held.insert(slot).inserted)
                running[index].slots.append(slot)
            }
            for index in running.indices.reversed() {
                let row = running[index]
                let isFull = row.slots.count == requests[row.request].sampling.maxTokens
                guard isFull || rolls.below(3) == 0 else { continue }
                running.remove(at: index)
                held.subtract(row.slots)
                scheduler.finish(request: row.request, taken: row.slots)
                owners[row.request]!.rows -= 1
                if owners[row.request]!.rows == 0 { held.subtract(owners.removeValue(forKey: row.request)!.slots) }
            }
        }
        #expect(scheduler.isDone && started == Array(requests.indices))
        #expect(scheduler.slotsHeld == 0 && held == Set(scheduler.prefixSlots))
    }

    @Test func aRequestThatNeverFitsIsNamed() {
        let request = RolloutRequest(prompt: [1, 2, 3], sampling: SamplingParameters(n: 2, maxTokens: 5))
        var scheduler = RolloutScheduler(
            requests: [request], limits: .init(maxRows: 8, maxPrefillTokens: 8), slots: 12)
        #expect(scheduler.admit().isEmpty && scheduler.stuck == 0)
    }

    @Test func drawsDependOnSeedSampleAndPositionOnly() {
        let sampling = SamplingParameters(seed: 11)
        var seen: Set<Double> = []
        for sample in 0..<20 {
            for position in 0..<20 { seen.insert(sampling.uniform(sample: sample, position: position)) }
        }
        #expect(seen.count == 400 && seen.allSatisfy { $0 >= 0 && $0 < 1 })
        #expect(
            sampling.uniform(sample: 3, position: 4) == SamplingParameters(seed: 11).uniform(sample: 3, position: 4))
        #expect(
            sampling.uniform(sample: 3, position: 4) != SamplingParameters(seed: 12).uniform(sample: 3, position: 4))
    }
}
