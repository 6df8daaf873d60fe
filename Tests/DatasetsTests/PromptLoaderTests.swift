import Datasets
import Foundation
import Testing

private func numbered(_ count: Int) -> PromptList {
    PromptList(
        (0..<count).map {
            PromptRow(
                dataSource: "test", prompt: .text("row \($0)"), groundTruth: .number(String($0)),
                origin: RowOrigin(source: "test", line: $0 + 1))
        })
}

@Suite struct PromptLoaderTests {
    @Test(arguments: [(10, 3, true), (10, 3, false), (9, 3, true), (1, 1, true), (5, 8, false)])
    func eachPassHasEachRowAtMostOnce(count: Int, batchSize: Int, dropsLast: Bool) throws {
        var loader = try PromptLoader(
            source: numbered(count), batchSize: batchSize, seed: 7, dropsLast: dropsLast, epochs: 3)
        var passes: [[Int]] = [[], [], []]
        while let batch = try loader.next() {
            #expect(batch.indices.count == batchSize || !dropsLast)
            #expect(batch.rows.map(\.origin.line) == batch.indices.map { $0 + 1 })
            passes[batch.epoch] += batch.indices
        }
        let perPass = dropsLast ? count / batchSize * batchSize : count
        for pass in passes {
            #expect(pass.count == perPass)
            #expect(Set(pass).count == perPass)
        }
        #expect(try loader.next() == nil)
    }

    @Test func passesAndSeedsDifferAndRepeat() throws {
        func pass(seed: UInt64, epochs: Int) throws -> [[Int]] {
            var loader = try PromptLoader(source: numbered(100), batchSize: 100, seed: seed, epochs: epochs)
            var all: [[Int]] = []
            while let batch = try loader.next() { all.append(batch.indices) }
            return all
        }
        let first = try pass(seed: 1, epochs: 2)
        #expect(first[0] != first[1])
        #expect(try pass(seed: 1, epochs: 2) == first)
        #expect(try pass(seed: 2, epochs: 1)[0] != first[0])
    }

    @Test func withoutShufflingTheOrderIsTheSources() throws {
        var loader = try PromptLoader(
            source: numbered(5), batchSize: 2, seed: 0, shuffles: false, dropsLast: false, epochs: 1)
        var all: [Int] = []
        while let batch = try loader.next() { all += batch.indices }
        #expect(all == [0, 1, 2, 3, 4])
        #expect(loader.batchesPerEpoch == 3)
    }

    @Test(arguments: 0..<9) func goesOnExactlyWhereItWas(taken: Int) throws {
        func make() throws -> PromptLoader { try PromptLoader(source: numbered(11), batchSize: 3, seed: 42) }
        var whole = try make()
        let all = try (0..<9).map { _ in try whole.next()?.indices }
        var before = try make()
        for _ in 0..<taken { _ = try before.next() }
        let saved = try JSONDecoder().decode(LoaderState.self, from: JSONEncoder().encode(before.state))
        #expect(saved == before.state)
        var after = try make()
        try after.restore(saved)
        #expect(try (taken..<9).map { _ in try after.next()?.indices } == Array(all[taken...]))
    }

    @Test func anotherLoadersPositionIsRefused() throws {
        let state = try PromptLoader(source: numbered(11), batchSize: 3, seed: 42).state
        let others = try [
            PromptLoader(source: numbered(12), batchSize: 3, seed: 42),
            PromptLoader(source: numbered(11), batchSize: 2, seed: 42),
            PromptLoader(source: numbered(11), batchSize: 3, seed: 43),
            PromptLoader(source: numbered(11), batchSize: 3, seed: 42, shuffles: false),
        ]
        for var other in others {
            let error = try #require(throws: DatasetError.self) { try other.restore(state) }
            #expect(error.code == .stateMismatch)
        }
        var own = try PromptLoader(source: numbered(11), batchSize: 3, seed: 42)
        var beyond = state
        beyond.position = 12
        #expect(throws: DatasetError.self) { try own.restore(beyond) }
    }

    @Test func aBatchThatCannotBeIsAnError() {
        #expect(throws: DatasetError.self) { try PromptLoader(source: numbered(0), batchSize: 1, seed: 0) }
        #expect(throws: DatasetError.self) { try PromptLoader(source: numbered(3), batchSize: 4, seed: 0) }
        #expect(throws: DatasetError.self) { try PromptLoader(source: numbered(3), batchSize: 0, seed: 0) }
    }

    @Test func aRowThatCannotBeReadLeavesThePosition() throws {
        struct Broken: PromptSource {
            let count = 4
            func row(at index: Int) throws -> PromptRow { throw DatasetError(.unreadable, "gone") }
        }
        var loader = try PromptLoader(source: Broken(), batchSize: 2, seed: 0)
        let before = loader.state
        #expect(throws: DatasetError.self) { try loader.next() }
        #expect(loader.state == before)
    }

    @Test func splitsAreDisjointAndWhole() throws {
        let source = numbered(50)
        let (training, validation) = try source.split(validationCount: 12, seed: 3)
        #expect(validation.count == 12)
        #expect(Set(training.indices + validation.indices) == Set(0..<50))
        #expect(training.indices == training.indices.sorted())
        #expect(try source.split(validationCount: 12, seed: 3).validation.indices == validation.indices)
        #expect(try source.split(validationCount: 12, seed: 4).validation.indices != validation.indices)
        #expect(try validation.row(at: 5).origin.line == validation.indices[5] + 1)
        for count in [0, -1, 50, 51] {
            #expect(throws: DatasetError.self) { try source.split(validationCount: count, seed: 3) }
        }
    }
}

@Suite struct SplitMix64Tests {
    /// The first outputs for the seed 1234567, as published with the reference implementation.
    @Test func matchesTheReference() {
        var generator = SplitMix64(seed: 1_234_567)
        let expected: [UInt64] = [
            6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
            4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
        ]
        #expect(expected.map { _ in generator.next() } == expected)
    }

    @Test(arguments: [1, 2, 3, 7, 100] as [UInt64]) func drawsBelowTheBoundEvenly(bound: UInt64) {
        var generator = SplitMix64(seed: 5)
        var counts = [Int](repeating: 0, count: Int(bound))
        for _ in 0..<Int(bound) * 1000 { counts[Int(generator.next(below: bound))] += 1 }
        #expect(counts.allSatisfy { (800...1200).contains($0) })
    }

    @Test(arguments: [0, 1, 2, 1000]) func permutationsHoldEachNumberOnce(count: Int) {
        var generator = SplitMix64(seed: 9)
        #expect(generator.permutation(count: count).sorted() == (0..<count).map { UInt32($0) })
    }
}
