import Checkpoints
import Collectives
import Models
import TensorCore
import Testing

/// Ranks that share a model compute what one process does, for every family and layout.
@Suite struct ParallelModelTests {
    typealias Layout = ParallelModels.Layout

    @Test(arguments: ParallelModels.families, ParallelModels.dense)
    func lossAndGradientsAreThoseOfOneProcess(family: FamilyTests.Family, layout: Layout) throws {
        try check(family, layout)
    }

    @Test(arguments: ParallelModels.mixtures, ParallelModels.sparse)
    func lossAndGradientsOfSharedExpertsAreThoseOfOneProcess(family: FamilyTests.Family, layout: Layout) throws {
        try check(family, layout)
    }

    private func check(_ family: FamilyTests.Family, _ layout: Layout) throws {
        try ParallelModels.run(family, layout) { rank in
            for model in [rank.whole, rank.part] {
                for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
            }
            try withGrad {
                var expected: [Double] = []
                for data in 0..<rank.dataCount {
                    let loss = try ParallelModels.loss(rank.whole, data: data)
                    expected.append(try loss.item())
                    try loss.backward()
                }
                let loss = try ParallelModels.loss(rank.part, data: rank.data)
                #expect(abs(try loss.item() - expected[rank.data]) <= 1e-5 * abs(expected[rank.data]))
                try loss.backward()
            }
            try withNoGrad { try ParallelModels.compareGradients(rank.part, rank.whole, rank.mesh) }
        }
    }

    @Test(arguments: ParallelModels.families, [2, 4])
    func ranksHoldTheirPartsOfTheCheckpointAndAllOfItTogether(family: FamilyTests.Family, size: Int) throws {
        try ParallelModels.run(family, Layout(sizes: [.tensor: size])) { rank in
            let whole = Dictionary(uniqueKeysWithValues: try rank.whole.namedTensors().map { ($0.name, $0.tensor) })
            var covered: [String: Tensor] = [:]
            for parameter in rank.part.parameters + rank.part.buffers {
                for shard in try parameter.shards() {
                    let tensor = try #require(whole[shard.box.name])
                    #expect(tensor.shape == shard.box.shape)
                    #expect(try ParallelModels.difference(shard.tensor, ParallelModels.slice(tensor, shard.box)) == 0)
                    let cover = try covered[shard.box.name] ?? Tensor.zeros(tensor.shape)
                    try ParallelModels.slice(cover, shard.box).copy(from: shard.tensor)
                    covered[shard.box.name] = cover
                }
            }
            #expect(Set(covered.keys) == Set(whole.keys))
            // Where several ranks hold the same, the largest of what they hold is it, and of what they do not, zero.
            let group = try #require(try rank.mesh.group(.tensor))
            for (name, cover) in covered.sorted(by: { $0.key < $1.key }) {
                let most = try cover.cloned(), least = cover
                try group.allReduce([most], .max)
                try group.allReduce([least], .min)
                let tensor = try #require(whole[name])
                #expect(
                    try ParallelModels.difference(most.adding(least), tensor) == 0 || isWhole(rank, name), "\(name)")
            }
        }
    }

    private func isWhole(_ rank: ParallelModels.Rank, _ name: String) -> Bool {
        (rank.part.parameters + rank.part.buffers).flatMap(\.parts).contains { $0.name == name && $0.box.isWhole }
    }

    @Test(arguments: ParallelModels.families)
    func logitsAndTokensThroughTheCacheAreThoseOfOneProcess(family: FamilyTests.Family) throws {
        for size in [2, 4] {
            try ParallelModels.run(family, Layout(sizes: [.tensor: size])) { rank in
                let expected = try greedy(rank.whole), actual = try greedy(rank.part)
                #expect(expected.tokens == actual.tokens)
                #expect(try ParallelModels.difference(actual.logits, expected.logits) < 2e-5)
            }
        }
    }

    private func greedy(_ model: any CausalLanguageModel) throws -> (tokens: [Int], logits: Tensor) {
        let prompt: [Int64] = [3, 1, 4, 15, 9, 26, 5], count = 5
        let cache = try KeyValueCache(for: model, slots: prompt.count + count)
        var tokens: [Int] = []
        return try withNoGrad {
            let first = try model.hiddenStates(
                ids: Tensor(prompt), positions: Tensor.arange(0..<prompt.count),
                attention: PrefillAttention(
                    cache: cache, segments: [PackedSegment(start: 0, length: prompt.count)],
                    slots: Tensor.arange(0..<prompt.count)))
            var logits = try model.logits(first.narrowed(0, prompt.count - 1..<prompt.count))
            for step in 0..<count {
                tokens.append(try logits.argmax(1).itemInt())
                let position = prompt.count + step
                logits = try model.logits(
                    model.hiddenStates(
                        ids: Tensor([Int64(tokens[step])]), positions: Tensor([Int64(position)]),
                        attention: DecodeAttention(
                            cache: cache,
                            slotTable: Tensor((0...Int32(position)).map { $0 }, shape: [1, position + 1]),
                            lengths: Tensor([Int32(position + 1)]), newSlots: Tensor([Int64(position)]))))
            }
            return (tokens, logits)
        }
    }

    @Test func sizesThatRanksCannotShareAreRefusedWithBothNumbers() throws {
        func refusal(_ settings: [String: Int], _ layout: Layout, name: String = "Llama") throws -> String {
            let family = FamilyTests.Family(name: name, settings: settings.mapValues { .int($0) })
            let error = #expect(throws: ModelError.self) { try ParallelModels.run(family, layout) { _ in } }
            #expect(error?.code == .parallel)
            return error?.description ?? ""
        }
        let three = Layout(sizes: [.tensor: 3])
        #expect(try refusal([:], three).contains("4 is no multiple of 3 tensor parallel ranks"))
        #expect(
            try refusal(["num_attention_heads": 6, "num_key_value_heads": 6], three)
                .contains("40 is no multiple of 3 tensor parallel ranks"))
        #expect(
            try refusal(["num_attention_heads": 12, "num_key_value_heads": 6], Layout(sizes: [.tensor: 4]))
                .contains("key-value heads: 6 is no multiple of 4"))
        let experts = try refusal(["num_local_experts": 5], Layout(sizes: [.expert: 2]), name: "Mixtral")
        #expect(experts.contains("5 is no multiple of 2 expert parallel ranks"))
        #expect(experts.contains("choose 1 ranks"))
        #expect(
            try refusal([:], Layout(sizes: [.sequence: 3])).contains(
                "query heads: 4 is no multiple of 3 sequence parallel ranks"))
    }
}
