import Models
import TensorCore
import Testing

@testable import TrainingEngine

/// Packs of conversations whose branches share turns, to any depth.
@Suite struct PackTests {
    struct Random {
        var state: UInt64
        mutating func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(limit))
        }
        mutating func tokens(_ count: Int) -> [Int32] { (0..<count).map { _ in Int32(next(61)) } }
    }

    /// Conversations that branch now and then, each with a first prompt and all that follows it as its response; some prompts are
    /// longer, their histories holding what others answered.
    static func conversations(_ seed: UInt64, groups: Int = 3) -> [TrainingSequence] {
        var random = Random(state: seed)
        let system = random.tokens(random.next(30))
        var all: [TrainingSequence] = []
        for _ in 0..<groups {
            let first = system + random.tokens(1 + random.next(9))
            var branches = [first]
            for _ in 0..<3 {
                branches = branches.flatMap { history in
                    (0..<1 + random.next(3)).map { _ in history + random.tokens(1 + random.next(14)) }
                }
            }
            for branch in branches {
                let answered = branch.count - first.count
                let split = first.count + (random.next(3) == 0 ? random.next(answered) : 0)
                all.append(TrainingSequence(prompt: Array(branch[..<split]), response: Array(branch[split...])))
            }
        }
        // One twice, and one that another one goes on from.
        all.append(all[0])
        all.append(TrainingSequence(prompt: all[1].prompt, response: all[1].response + [7, 8]))
        return all
    }

    @Test(arguments: 0..<40) func everySequenceIsThereWhole(seed: Int) throws {
        let sequences = Self.conversations(UInt64(seed))
        let pack = Pack(sequences), apart = Pack(sequences, sharesPrefixes: false)
        #expect(pack.targets == apart.targets && pack.responseLengths == apart.responseLengths)
        #expect(pack.tokenCount <= apart.tokenCount)
        #expect(apart.segments.allSatisfy { $0.parent == nil } && apart.segments.count == sequences.count)
        // Each answer token is predicted by its own history, read back along the tree.
        var segmentOf = [Int](repeating: 0, count: pack.tokenCount)
        for (index, segment) in pack.segments.enumerated() {
            for t in 0..<segment.length { segmentOf[segment.start + t] = index }
        }
        var row = 0
        for sequence in sequences {
            let whole = sequence.prompt + sequence.response
            for offset in sequence.response.indices {
                let predictor = Int(pack.predictors[row])
                var history: [Int32] = [], segment: Int? = segmentOf[predictor], end = predictor + 1
                while let index = segment {
                    let own = pack.segments[index]
                    history = pack.ids[own.start..<end].map(Int32.init) + history
                    segment = own.parent
                    if let parent = segment { end = pack.segments[parent].start + pack.segments[parent].length }
                }
                #expect(history == Array(whole[..<(sequence.prompt.count + offset)]))
                #expect(Int(pack.positions[predictor]) == history.count - 1)
                row += 1
            }
        }
        let head = pack.headRows
        #expect(head.ofAnswerTokens.map { head.predictors[Int($0)] } == pack.predictors)
        #expect(head.ofAnswerTokens.map { head.targets[Int($0)] } == pack.targets)
        #expect(head.predictors.count <= pack.tokenCount + pack.segments.count * sequences.count)
        #expect(apart.headRows.isOnePerToken)
        // Together the tokens of all sequences, each alone.
        let whole = zip(pack.segments, pack.sharers).reduce(0) { $0 + $1.0.length * $1.1 }
        #expect(whole == sequences.reduce(0) { $0 + $1.computedCount })
    }

    /// What attention needs to gather nothing.
    @Test(arguments: 0..<40) func segmentsFollowOneAnotherByDepthAndParent(seed: Int) {
        let pack = Pack(Self.conversations(UInt64(seed), groups: 5))
        var depths: [Int] = [], start = 0
        for (index, segment) in pack.segments.enumerated() {
            #expect(segment.start == start)
            start += segment.length
            depths.append(segment.parent.map { depths[$0] + 1 } ?? 0)
            guard index > 0, let parent = segment.parent else { continue }
            #expect(depths[index] >= depths[index - 1])
            if depths[index] == depths[index - 1] { #expect(parent >= pack.segments[index - 1].parent ?? 0) }
        }
        #expect((depths.max() ?? 0) > 0)
    }

    @Test func turnsThatBranchesShareAreThereOnce() {
        let prompt = [Int32](0..<20), turn = [Int32](20..<50)
        let sequences = [[Int32](50..<60), [Int32](51..<71)].map {
            TrainingSequence(prompt: prompt, response: turn + $0)
        }
        // The last token of each is not computed.
        #expect(Pack(sequences).tokenCount == 20 + 30 + 9 + 19)
        #expect(Pack(sequences).segments.map(\.parent) == [nil, 0, 0])
        // The head too: the shared turn, and all that differs.
        #expect(Pack(sequences).headRows.predictors.count == 30 + 10 + 20)
        // A few tokens that some answers begin with cost more than they save.
        let alike = (0..<4).map { TrainingSequence(prompt: prompt, response: [Int32($0 % 2), Int32(30 + $0), 7]) }
        #expect(Pack(alike).segments.count == 5)
    }

    @Test(arguments: 0..<12, [1, 60, 150, 100_000]) func microBatchesKeepTreesTogether(seed: Int, budget: Int) {
        let sequences = Self.conversations(UInt64(seed))
        for shares in [true, false] {
            let micros = MicroBatches.split(
                sequences, indices: Array(sequences.indices), tokenBudget: budget, sharesPrefixes: shares)
            #expect(micros.flatMap { $0 }.sorted() == Array(sequences.indices))
            for micro in micros {
                let tokens = Pack(micro.map { sequences[$0] }, sharesPrefixes: shares).tokenCount
                #expect(micro.count == 1 || tokens <= budget)
            }
        }
    }

    /// Loss and gradients with and without sharing, over any split.
    @Test(arguments: [1, 2, 3], [(200, false), (100_000, true)])
    func gradientsOfTreesAreThoseWithoutSharing(seed: Int, split: (budget: Int, checkpointing: Bool)) throws {
        let sequences = Self.conversations(UInt64(seed))
        func gradients(_ budget: Int, shares: Bool, checkpointing: Bool) throws -> (Double, [[Float]], Int) {
            let model = try PolicyTrainerTests.model()
            model.checkpointing = checkpointing ? .full : .none
            let trainer = PolicyTrainer(
                model: model, optimizer: try AdamW(parameters: model.parameters, settings: .init()),
                schedule: LearningRateSchedule(peak: 1e-3),
                settings: .init(microBatchTokens: budget, sharesPrefixes: shares, logitsChunk: 16))
            let samples = sequences.map { sequence in
                PolicySample(
                    sequence: sequence, oldLogProbs: sequence.response.map { _ in -3 },
                    advantages: sequence.response.map { Float($0 % 5) - 2 },
                    rolloutLogProbs: sequence.response.map { _ in -3 })
            }
            let result = try trainer.accumulate(samples, loss: PolicyTrainerTests.loss)
            let grads = try model.parameters.map { try #require(try $0.tensor.grad()).values(Float.self) }
            return (result.metrics[0].value, grads, result.computedTokens)
        }
        let (expectedLoss, expected, all) = try gradients(100_000, shares: false, checkpointing: false)
        let (loss, grads, computed) = try gradients(split.budget, shares: true, checkpointing: split.checkpointing)
        #expect(computed < all)
        #expect(abs(loss - expectedLoss) <= 1e-5 * abs(expectedLoss))
        for (a, b) in zip(grads, expected) {
            let scale = b.map(abs).max() ?? 0
            for (x, y) in zip(a, b) { #expect(abs(x - y) <= 2e-5 * scale + 1e-7) }
        }
    }

    /// The head's gradient known beforehand, against the recorded pass.
    @Test(arguments: [false, true], [DType.float32, .bfloat16])
    func backwardAtOnceIsTheRecordedOne(checkpointing: Bool, dtype: DType) throws {
        let sequences = Self.conversations(5)
        let weights = sequences.map { $0.response.map { Float($0 % 7) * 0.01 - 0.02 } }
        let entropyWeights = sequences.map { $0.response.map { Float($0 % 3) * 0.003 } }
        func run(atOnce: Bool) throws -> (Double, [Tensor]) {
            let model = try PolicyTrainerTests.model(dtype: dtype)
            model.checkpointing = checkpointing ? .full : .none
            for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
            let forward = PackedForward(model: model, temperature: 0.8, logitsChunk: 13)
            let loss = try withGrad {
                if atOnce {
                    return try forward.backward(sequences, logProbGrads: weights, entropyGrads: entropyWeights).loss
                }
                let outputs = try forward(sequences), padding = Padding(lengths: sequences.map(\.response.count))
                let loss = try outputs.logProbs.multiplied(by: padding.pad(weights, device: .cpu)).sum()
                    .adding(outputs.entropies.multiplied(by: padding.pad(entropyWeights, device: .cpu)).sum())
                try loss.backward()
                return loss
            }
            return (try loss.item(), try model.parameters.map { try #require(try $0.tensor.grad()) })
        }
        let (expectedLoss, expected) = try run(atOnce: false), (loss, grads) = try run(atOnce: true)
        #expect(abs(loss - expectedLoss) <= 1e-4 * abs(expectedLoss))
        for (a, b) in zip(grads, expected) {
            let gap = try a.to(dtype: .float32).subtracting(b.to(dtype: .float32)).squared().sum().item().squareRoot()
            let size = try b.to(dtype: .float32).squared().sum().item().squareRoot()
            #expect(gap <= (dtype == .float32 ? 2e-5 : 2e-2) * size + 1e-7)
        }
    }
}
