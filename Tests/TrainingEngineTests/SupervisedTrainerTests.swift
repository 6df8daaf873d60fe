import PolicyAlgorithms
import Models
import TensorCore
import Testing

@testable import TrainingEngine

@Suite struct SupervisedTrainerTests {
    static func ids(_ count: Int, _ seed: Int) -> [Int32] { (0..<count).map { Int32(($0 * 7 + seed * 13 + 5) % 61) } }

    /// Conversations of several turns: runs of learnt and other tokens.
    static let conversations: [SupervisedExample] = (0..<7).map { index in
        let ids = ids(9 + 3 * index, index)
        let mask = ids.indices.map { UInt8($0 % (4 + index % 3) >= 2 ? 1 : 0) }
        return SupervisedExample([SupervisedSequence(ids: ids, mask: mask)!])
    }

    static func pairs(references: Bool) -> [SupervisedExample] {
        (0..<6).map { index in
            let prompt = ids(10, index % 2)
            func answer(_ length: Int, _ seed: Int) -> SupervisedSequence {
                SupervisedSequence(
                    ids: prompt + ids(length, seed), mask: (0..<10 + length).map { $0 < 10 ? 0 : 1 })!
            }
            return SupervisedExample(
                [answer(2 + index, index + 3), answer(5 - index % 4, index + 9)],
                references: references ? [Float(-4 - index), Float(-9 + index)] : nil, margin: Float(index) / 4)
        }
    }

    static func trainer(
        _ objective: any SupervisedObjective, budget: Int = 100_000, shares: Bool = true, rate: Double = 1e-2,
        lora: LoRASettings? = nil
    ) throws -> SupervisedTrainer {
        let model = try PolicyTrainerTests.model()
        if let lora { try model.addAdapter(lora) }
        return SupervisedTrainer(
            network: .language(model), objective: objective,
            optimizer: try AdamW(parameters: model.trainableParameters, settings: .init(weightDecay: 0)),
            schedule: LearningRateSchedule(peak: rate),
            settings: .init(microBatchTokens: budget, sharesPrefixes: shares, logitsChunk: 4))
    }

    static func gradients(_ trainer: SupervisedTrainer, _ examples: [SupervisedExample]) throws -> (Double, [[Float]]) {
        let report = try trainer.accumulate(examples)
        let loss = report.metrics.first { $0.name == "loss" }?.value ?? .nan
        let grads = try trainer.network.model.parameters.map { parameter in
            let found = try parameter.tensor.grad()
            return try #require(found).values(Float.self)
        }
        return (loss, grads)
    }

    func expectSame(_ one: (Double, [[Float]]), _ other: (Double, [[Float]])) {
        #expect(abs(one.0 - other.0) <= 1e-5 * max(1, abs(other.0)))
        for (a, b) in zip(one.1, other.1) {
            let scale = b.map(abs).max() ?? 0
            for (x, y) in zip(a, b) { #expect(abs(x - y) <= 3e-5 * scale + 1e-7) }
        }
    }

    /// The loss of all learnt tokens, sequence by sequence, without packs or micro-batches.
    static func plainLoss(_ model: any CausalLanguageModel, _ examples: [SupervisedExample]) throws -> Tensor {
        var sum = try Tensor.zeros([]), count = 0.0
        for sequence in examples.flatMap(\.sequences) {
            let prompt = sequence.tokens.prompt.count
            let ids = (sequence.tokens.prompt + sequence.tokens.response).map(Int64.init)
            let logP = try model.hiddenStates(
                ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)])
            ).linear(model.head).logSoftmax(1)
            for (place, isLearnt) in sequence.mask.enumerated() where isLearnt != 0 {
                let token = Int(sequence.tokens.response[place])
                sum = try sum.subtracting(logP.selected(0, prompt + place - 1).selected(0, token))
                count += 1
            }
        }
        return try sum.divided(by: count)
    }

    @Test(arguments: [(1, true), (30, true), (45, false), (100_000, false), (100_000, true)])
    func assistantOnlyLossIsThePlainOneHoweverItIsSplit(budget: Int, shares: Bool) throws {
        let model = try PolicyTrainerTests.model()
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        let loss = try withGrad {
            let loss = try Self.plainLoss(model, Self.conversations)
            try loss.backward()
            return try loss.item()
        }
        let plain = try model.parameters.map { parameter in
            let found = try parameter.tensor.grad()
            return try #require(found).values(Float.self)
        }
        let trainer = try Self.trainer(ImitationObjective(), budget: budget, shares: shares)
        expectSame(try Self.gradients(trainer, Self.conversations), (loss, plain))
    }

    /// What no token of the assistant's predicts has no gradient at all.
    @Test func gradientIsZeroWhereNothingIsLearnt() throws {
        let mask = try Tensor([1, 0, 0, 1, 1, 1, 0, 0] as [Float], shape: [2, 4])
        let leaf = try Tensor([Float](repeating: -1.5, count: 8), shape: [2, 4])
        try leaf.setRequiresGrad()
        try withGrad {
            let output = try ImitationObjective()(
                SupervisedBatch(
                    values: leaf, entropies: Tensor.zeros([2, 4]), mask: mask, count: 2,
                    totals: .init(examples: 2, tokens: 8)))
            try output.loss.backward()
        }
        let found = try leaf.grad()
        let gradient = try #require(found).values(Float.self)
        #expect(gradient == [-0.125, 0, 0, -0.125, -0.125, -0.125, 0, 0])
        #expect(ImitationObjective().gradient(.init(examples: 2, tokens: 8)) == -0.125)
        // That one's weights are not known beforehand.
        #expect(ImitationObjective(SFTLoss(.dft)).gradient(.init(examples: 2, tokens: 8)) == nil)
    }

    /// The same loss, whose gradient is asked for after the forward pass.
    private struct Unforeseen: SupervisedObjective {
        let imitation = ImitationObjective()
        var sequencesPerExample: Int { 1 }
        func callAsFunction(_ batch: SupervisedBatch) throws -> LossOutput { try imitation(batch) }
    }

    @Test(arguments: [30, 100_000]) func aGradientKnownBeforehandIsTheOneFoundAfterwards(budget: Int) throws {
        let known = try Self.trainer(ImitationObjective(), budget: budget)
        let found = try Self.trainer(Unforeseen(), budget: budget)
        expectSame(try Self.gradients(known, Self.conversations), try Self.gradients(found, Self.conversations))
        for _ in 0..<3 {
            let one = try known.update(Self.conversations), other = try found.update(Self.conversations)
            #expect(one.metrics.map(\.name) == other.metrics.map(\.name))
            for (a, b) in zip(one.metrics, other.metrics) { #expect(abs(a.value - b.value) < 1e-4) }
            #expect(abs(one.gradNorm - other.gradNorm) < 1e-4 * other.gradNorm)
            #expect(one.computedTokens == other.computedTokens && one.learntTokens == other.learntTokens)
        }
    }

    @Test func sequencesAreCutToWhatIsLearnt() throws {
        let sequence = try #require(
            SupervisedSequence(ids: [5, 6, 7, 8, 9, 10], mask: [1, 0, 1, 0, 1, 0]))
        // A first token is predicted by nothing.
        #expect(sequence.tokens == TrainingSequence(prompt: [5, 6], response: [7, 8, 9]))
        #expect(sequence.mask == [1, 0, 1] && sequence.learntTokens == 2)
        #expect(SupervisedSequence(ids: [5, 6], mask: [1, 0]) == nil)
    }

    @Test(arguments: [1, 30, 50]) func examplesStayWholeWithinTheBudget(budget: Int) {
        let examples = Self.pairs(references: false)
        let micros = MicroBatches.split(examples, tokenBudget: budget, sharesPrefixes: true)
        #expect(micros.flatMap { Array($0) } == Array(examples.indices))
        for micro in micros where micro.count > 1 {
            #expect(Pack(examples[micro].flatMap(\.sequences).map(\.tokens)).tokenCount <= budget)
        }
    }

    @Test(arguments: [DPOLoss.Term.sigmoid, .ipo, .hinge, .sft], [(25, true), (40, false), (100_000, false)])
    func preferencesDoNotDependOnTheSplit(term: DPOLoss.Term, split: (budget: Int, shares: Bool)) throws {
        let objective = PreferenceObjective(DPOLoss([.init(term)], beta: 0.2))
        let examples = Self.pairs(references: true)
        let whole = try Self.gradients(Self.trainer(objective), examples)
        let parts = try Self.gradients(Self.trainer(objective, budget: split.budget, shares: split.shares), examples)
        expectSame(parts, whole)
    }

    /// At its own reference a policy has no margin, and the sigmoid loss is log 2.
    @Test func preferencesBeginAtTheReference() throws {
        let trainer = try Self.trainer(PreferenceObjective(DPOLoss(beta: 0.5)), budget: 40)
        var examples = Self.pairs(references: false)
        for (index, sums) in try trainer.referenceLogProbs(examples).enumerated() { examples[index].references = sums }
        func value(_ metrics: [(name: String, value: Double)], _ name: String) -> Double {
            metrics.first { $0.name == name }?.value ?? .nan
        }
        let before = try trainer.evaluate(examples)
        #expect(abs(value(before, "loss") - 0.693_147_18) < 1e-5)
        #expect(abs(value(before, "rewards/margins")) < 1e-4)
        for _ in 0..<20 { _ = try trainer.update(examples) }
        let after = try trainer.evaluate(examples)
        #expect(value(after, "loss") < 0.3 && value(after, "rewards/accuracies") > 0.8)
        #expect(value(after, "rewards/margins") > 0.5)
        let margin = value(after, "rewards/chosen") - value(after, "rewards/rejected")
        #expect(abs(margin - value(after, "rewards/margins")) < 1e-4)
    }

    /// Below an adapter the reference stays what it was, however far training has gone.
    @Test func theReferenceLiesBelowTheAdapter() throws {
        let trainer = try Self.trainer(
            PreferenceObjective(), lora: LoRASettings(rank: 4, alpha: 8, targets: .allLinear, seed: 2))
        var examples = Self.pairs(references: false)
        let first = try trainer.referenceLogProbs(examples)
        for (index, sums) in first.enumerated() { examples[index].references = sums }
        for _ in 0..<5 { _ = try trainer.update(examples) }
        #expect(try trainer.referenceLogProbs(examples) == first)
        #expect(try trainer.evaluate(examples)[0].value < 0.69)
    }

    @Test func aLossWithoutItsReferenceSaysSo() throws {
        let trainer = try Self.trainer(PreferenceObjective())
        #expect { try trainer.update(Self.pairs(references: false)) } throws: {
            ($0 as? AlgorithmError)?.code == .missingInput
        }
    }

    @Test func aFewStepsLowerTheLoss() throws {
        let trainer = try Self.trainer(ImitationObjective(), budget: 60)
        var losses: [Double] = []
        for _ in 0..<25 { losses.append(try trainer.update(Self.conversations).metrics[0].value) }
        #expect(losses[24] < losses[0] * 0.5)
    }
}
