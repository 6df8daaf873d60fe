import Models
import TensorCore
import Testing

@testable import TrainingEngine

@Suite struct BatchingTests {
    /// The least possible greatest sum, by trying everything.
    static func best(_ costs: [Double], _ parts: Int) -> Double {
        var sums = [Double](repeating: 0, count: parts), least = Double.infinity
        func place(_ index: Int) {
            guard (sums.max() ?? 0) < least else { return }
            guard index < costs.count else {
                least = sums.max() ?? 0
                return
            }
            for part in 0..<parts {
                sums[part] += costs[index]
                place(index + 1)
                sums[part] -= costs[index]
                // The other empty parts are the same.
                if sums[part] == 0 { break }
            }
        }
        place(0)
        return least
    }

    @Test(arguments: 1...4, 0..<40) func partitionsAreNearTheBest(parts: Int, seed: Int) {
        var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 &+ 1
        func next(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        let costs = (0..<Int(next(9))).map { _ in Double(1 + next(seed % 2 == 0 ? 20 : 1000)) }
        let divided = Balance.partition(costs, into: parts)
        #expect(divided.count == parts && divided.joined().sorted() == Array(costs.indices))
        for part in divided { #expect(part == part.sorted()) }
        let greatest = divided.map { $0.reduce(0) { $0 + costs[$1] } }.max() ?? 0
        let bound = parts == 1 ? 1 : 4.0 / 3 - 1 / (3 * Double(parts))
        #expect(greatest <= bound * (costs.isEmpty ? 0 : Self.best(costs, parts)) + 1e-9)
    }

    @Test func theClassicExampleIsDivided() {
        // Karmarkar and Karp's: differencing ends with 2, where greedy ends with 4.
        let sums = Balance.partition([8, 7, 6, 5, 4], into: 2).map { $0.reduce(0) { $0 + [8, 7, 6, 5, 4][$1] } }
        #expect(sums.sorted() == [14, 16])
        #expect(Balance.partition([], into: 3) == [[], [], []])
        #expect(Balance.partition([5], into: 3).filter { !$0.isEmpty } == [[0]])
    }

    static let work = SequenceWork(perToken: 100, perPair: 1)

    static func sequences(_ groups: [(prompt: Int, answers: [Int])]) -> [TrainingSequence] {
        groups.enumerated().flatMap { index, group in
            group.answers.map { length in
                TrainingSequence(
                    prompt: (0..<group.prompt).map { Int32($0 + 100 * index) }, response: (0..<length).map { Int32($0) }
                )
            }
        }
    }

    @Test func groupsStayTogetherWhileTheyBalance() {
        let sequences = Self.sequences((0..<8).map { _ in (40, [20, 20, 20, 20]) })
        let shares = BatchAssignment.assign(sequences, ranks: 4, work: Self.work)
        #expect(shares.map(\.count) == [8, 8, 8, 8])
        for share in shares { #expect(Set(share.map { sequences[$0].prompt }).count == 2) }
    }

    /// One group for four ranks: to compute its prompt four times is better than to wait.
    @Test func aGroupIsCutWhereOthersWouldWait() {
        let sequences = Self.sequences([(20, [50, 50, 50, 50, 50, 50, 50, 50])])
        let shares = BatchAssignment.assign(sequences, ranks: 4, work: Self.work)
        #expect(shares.map(\.count) == [2, 2, 2, 2])
        // A prompt that costs more than the answers is better computed once.
        let heavy = Self.sequences([(400, [2, 2])])
        #expect(BatchAssignment.assign(heavy, ranks: 2, work: Self.work).map(\.count).sorted() == [0, 2])
    }

    @Test(arguments: 0..<30, [1, 2, 4]) func everySequenceIsSomewhere(seed: Int, ranks: Int) {
        let groups = (0..<(seed % 7)).map { group in
            (
                prompt: 1 + (seed * 7 + group * 13) % 30,
                answers: (0..<(1 + (seed + group) % 5)).map { ($0 * 11 + seed) % 40 }
            )
        }
        let sequences = Self.sequences(groups)
        for shares in [true, false] {
            let assigned = BatchAssignment.assign(sequences, ranks: ranks, work: Self.work, sharesPrefixes: shares)
            #expect(assigned.count == ranks && assigned.joined().sorted() == Array(sequences.indices))
        }
        let micros = MicroBatches.split(sequences, indices: Array(sequences.indices), size: 3)
        #expect(micros.joined().sorted() == Array(sequences.indices) && micros.allSatisfy { $0.count <= 3 })
    }

    @Test(arguments: [30, 60, 90, 200], [2, 3, 5]) func balancedMicroBatchesKeepToTheBudget(budget: Int, count: Int) {
        let sequences = PolicyTrainerTests.samples.map(\.sequence), indices = [0, 1, 2, 4, 5, 7, 8]
        guard
            let micros = MicroBatches.balanced(
                sequences, indices: indices, into: count, tokenBudget: budget, work: Self.work, sharesPrefixes: true)
        else {
            #expect(budget < 90 || count > 3)
            return
        }
        #expect(micros.count == count && micros.joined().sorted() == indices)
        for micro in micros where micro.count > 1 {
            #expect(Pack(micro.map { sequences[$0] }).tokenCount <= budget)
        }
    }

    /// Attention counts with the square: one long sequence weighs more than short ones of as many tokens.
    @Test func longSequencesWeighMore() throws {
        let shape = ModelShape(
            vocabulary: 10, hidden: 64, layers: 2, queryHeads: 4, keyValueHeads: 2, headDim: 16, maxPositions: 9999)
        let work = SequenceWork(shape, multiplied: 1000)
        // 2 · 2 layers · 4 heads · (16 + 16) a pair, and half of the pairs.
        #expect(work(tokens: 10) == 2 * 1000 * 10 + 512 * 100 / 2)
        #expect(abs(work(tokens: 10) + work(tokens: 5, after: 10) - work(tokens: 15)) < 1e-6)
        #expect(work(tokens: 200) > 2 * work(tokens: 100))
        let experts = SequenceWork(try TinyFamily.all[11].model()), dense = SequenceWork(try TinyFamily.all[3].model())
        #expect(experts.perToken < 2 * dense.perToken)
    }
}
