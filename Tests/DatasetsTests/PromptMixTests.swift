import Datasets
import Foundation
import Testing

private func source(_ count: Int) -> PromptList {
    PromptList(
        (0..<count).map {
            PromptRow(
                dataSource: "test", prompt: .text("\($0)"), groundTruth: .null,
                origin: RowOrigin(source: "test", line: $0 + 1))
        })
}

private func mix(_ parts: [(count: Int, weight: Double)]) throws -> PromptMix {
    var start = 0
    return try PromptMix(
        parts: parts.enumerated().map { index, part in
            defer { start += part.count }
            return .init(name: "part \(index)", rows: start..<start + part.count, weight: part.weight)
        })
}

@Suite struct PromptMixTests {
    @Test(arguments: [
        ([(10, 1.0), (10, 1.0)], [10, 10]), ([(90, 1.0), (10, 1.0)], [50, 50]), ([(5, 3.0), (5, 1.0)], [8, 2]),
        ([(7, 1.0), (7, 1.0), (7, 1.0)], [7, 7, 7]), ([(1, 1.0), (1, 1.0), (2, 0.9)], [1, 2, 1]),
    ])
    func quotasFollowTheWeights(parts: [(Int, Double)], quotas: [Int]) throws {
        let mix = try mix(parts.map { (count: $0.0, weight: $0.1) })
        #expect(mix.quotas.reduce(0, +) == quotas.reduce(0, +))
        let total = parts.reduce(0) { $0 + $1.1 }
        for (quota, part) in zip(mix.quotas, parts) {
            #expect(abs(Double(quota) - part.1 / total * Double(quotas.reduce(0, +))) < 1)
        }
        if parts.count == 2 { #expect(mix.quotas == quotas || parts[0].1 == 3.0) }
    }

    /// Every pass has each part's quota, and every part's rows come equally often over the passes.
    @Test(arguments: [true, false])
    func sharesHoldInEveryPassAndRowsTakeTurns(shuffles: Bool) throws {
        let mix = try mix([(40, 1), (10, 2), (25, 1)])
        var counts = [Int](repeating: 0, count: 75)
        for pass in 0..<20 {
            let order = mix.order(pass: pass, seed: 9, shuffles: shuffles)
            #expect(order.count == 75)
            for (part, quota) in zip(mix.parts, mix.quotas) {
                #expect(order.count { part.rows.contains(Int($0)) } == quota)
            }
            for row in order { counts[Int(row)] += 1 }
        }
        for part in mix.parts {
            let own = counts[part.rows]
            #expect(own.max()! - own.min()! <= 1)
        }
    }

    @Test func withoutShufflingPartsTakeTurnsAndRowsAreInOrder() throws {
        let mix = try mix([(4, 1), (4, 1)])
        #expect(mix.order(pass: 0, seed: 0, shuffles: false) == [0, 4, 1, 5, 2, 6, 3, 7])
        let second = try PromptMix(parts: [
            .init(name: "a", rows: 0..<6, weight: 1), .init(name: "b", rows: 6..<8, weight: 1),
        ])
        #expect(second.order(pass: 0, seed: 0, shuffles: false) == [0, 6, 1, 7, 2, 6, 3, 7])
        #expect(second.order(pass: 1, seed: 0, shuffles: false) == [4, 6, 5, 7, 0, 6, 1, 7])
    }

    @Test func passesAndSeedsDifferAndRepeat() throws {
        let mix = try mix([(60, 1), (40, 3)])
        let first = mix.order(pass: 0, seed: 1, shuffles: true)
        #expect(mix.order(pass: 0, seed: 1, shuffles: true) == first)
        #expect(mix.order(pass: 1, seed: 1, shuffles: true) != first)
        #expect(mix.order(pass: 0, seed: 2, shuffles: true) != first)
    }

    /// Stopped anywhere and resumed, a loader gives the rows that it would have given.
    @Test(arguments: 0..<40) func goesOnExactlyWhereItWas(seed: Int) throws {
        var generator = SplitMix64(seed: UInt64(seed))
        func random(_ range: ClosedRange<Int>) -> Int {
            range.lowerBound + Int(generator.next(below: UInt64(range.count)))
        }
        let parts = (0..<random(1...4)).map { _ in (count: random(3...30), weight: Double(random(1...5))) }
        let count = parts.reduce(0) { $0 + $1.count }
        let (mixed, batch, shuffles, dropsLast) = (
            random(0...3) > 0 ? try mix(parts) : nil, random(1...min(8, count)), random(0...1) == 1, random(0...1) == 1
        )
        func make() throws -> PromptLoader {
            try PromptLoader(
                source: source(count), mix: mixed, batchSize: batch, seed: UInt64(seed), shuffles: shuffles,
                dropsLast: dropsLast)
        }
        let steps = random(1...40)
        var whole = try make()
        let all = try (0..<steps).map { _ in try whole.next()?.indices }
        let stop = random(0...steps)
        var before = try make()
        for _ in 0..<stop { _ = try before.next() }
        let saved = try JSONDecoder().decode(LoaderState.self, from: JSONEncoder().encode(before.state))
        var after = try make()
        try after.restore(saved)
        #expect(try (stop..<steps).map { _ in try after.next()?.indices } == Array(all[stop...]))
    }

    @Test func anotherMixOrOtherDataIsRefused() throws {
        func loader(_ parts: [(count: Int, weight: Double)]?) throws -> PromptLoader {
            try PromptLoader(source: source(20), mix: try parts.map { try mix($0) }, batchSize: 2, seed: 1)
        }
        let state = try loader([(10, 1), (10, 2)]).state
        for other in [[(count: 10, weight: 1.0), (count: 10, weight: 1.0)], nil] {
            var loader = try loader(other)
            #expect(try #require(throws: DatasetError.self) { try loader.restore(state) }.code == .stateMismatch)
        }
        func files(_ text: String) throws -> TemporaryFile {
            try TemporaryFile(
                ["a", "b", text].map { #"{"data_source":"d","prompt":"\#($0)","reward_model":{"ground_truth":1}}"# }
                    .joined(separator: "\n"))
        }
        let (one, same, other) = (try files("c"), try files("c"), try files("C"))
        func fromFile(_ file: TemporaryFile) throws -> PromptLoader {
            try PromptLoader(source: file.dataset(), batchSize: 1, seed: 1)
        }
        let saved = try fromFile(one).state
        var again = try fromFile(same)
        try again.restore(saved)
        var changed = try fromFile(other)
        #expect(throws: DatasetError.self) { try changed.restore(saved) }
        // Saved before there were fingerprints.
        var old = saved
        old.fingerprint = nil
        try changed.restore(old)
        #expect(changed.state.fingerprint != nil)
    }

    @Test func aFilterKeepsTheWeights() throws {
        let mix = try mix([(4, 1), (4, 3)]).keeping([0, 2, 3, 5, 6])
        #expect(mix.parts.map(\.rows) == [0..<3, 3..<5])
        #expect(mix.parts.map(\.weight) == [1, 3])
        #expect(throws: DatasetError.self) { try mix.keeping([0, 1]) }
    }

    @Test func weightsThatCannotBeAreErrors() throws {
        for weight in [0, -1, Double.nan, .infinity] {
            #expect(throws: DatasetError.self) { try mix([(3, weight), (3, 1)]) }
        }
        let error = try #require(throws: DatasetError.self) { try mix([(3, 1e-6), (3, 1)]) }
        #expect(error.code == .badSetting)
        #expect(error.message.contains("part 0"))
    }
}
