import Checkpoints
import Collectives
import Models
import TensorCore
import Testing

/// Stages of layers that run micro-batches in turn compute what one process does.
@Suite struct PipelineTests {
    static let layouts: [ParallelModels.Layout] = [
        .init(sizes: [.pipeline: 2]),
        .init(sizes: [.pipeline: 3], checkpointing: .full),
        .init(sizes: [.pipeline: 2, .tensor: 2]),
        .init(sizes: [.pipeline: 2, .tensor: 2], splitsTokens: true),
        .init(sizes: [.pipeline: 2, .sequence: 2]),
    ]

    /// Micro-batches of one sequence each, of different lengths.
    private static let lengths = [9, 4, 13, 6, 7]

    private static func batches() throws -> [(PipelineSchedule.MicroBatch, targets: Tensor)] {
        try lengths.enumerated().map { index, length in
            let ids = (0..<length).map { Int64(($0 * 17 + 5 * index) % 61) }
            return (
                PipelineSchedule.MicroBatch(
                    ids: try Tensor(ids), positions: try Tensor.arange(0..<length),
                    attention: PackedAttention(segments: [PackedSegment(start: 0, length: length)])),
                try Tensor(ids.map { ($0 * 3 + 1) % 61 })
            )
        }
    }

    private static func loss(_ model: any CausalLanguageModel, _ hidden: Tensor, _ targets: Tensor) throws -> Tensor {
        let (logProbs, entropies) = try model.tokenLogProbs(hidden: hidden, targets: targets)
        return try logProbs.sum().negated().adding(entropies.sum().multiplied(by: 0.2)).divided(by: 39)
    }

    @Test(arguments: ParallelModels.families, layouts)
    func lossAndGradientsAreThoseOfOneProcess(family: FamilyTests.Family, layout: ParallelModels.Layout) throws {
        try ParallelModels.run(family, layout) { rank in
            let part = try #require(rank.part as? DecoderModel)
            for model in [rank.whole, rank.part] {
                for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
            }
            let batches = try Self.batches()
            var expected: [Double] = [], losses: [Double] = [], scored: [Double] = []
            for (batch, targets) in batches {
                try withGrad {
                    let hidden = try rank.whole.hiddenStates(
                        ids: batch.ids, positions: batch.positions, attention: batch.attention)
                    let loss = try Self.loss(rank.whole, hidden, targets)
                    expected.append(try loss.item())
                    try loss.backward()
                }
            }
            let schedule = PipelineSchedule(part)
            try schedule.forward(batches.map(\.0)) { index, hidden in
                scored.append(try Self.loss(part, hidden, batches[index].targets).item())
            }
            try schedule.train(batches.map(\.0)) { index, hidden in
                let loss = try Self.loss(part, hidden, batches[index].targets)
                losses.append(try loss.item())
                return loss
            }
            if part.stage.isLast {
                for (actual, wanted) in zip(losses + scored, expected + expected) {
                    #expect(abs(actual - wanted) <= 1e-5 * abs(wanted))
                }
            }
            #expect(losses.count == (part.stage.isLast ? expected.count : 0))
            if let embedding = part.parameters.first(where: { $0.name == "model.embed_tokens.weight" }) {
                try schedule.addTied(#require(try embedding.tensor.grad()))
            }
            try withNoGrad { try ParallelModels.compareGradients(part, rank.whole, rank.mesh) }
        }
    }

    @Test func stagesHoldEveryLayerOnceAndMoreStagesThanLayersAreRefused() throws {
        let family = FamilyTests.Family(name: "Llama", settings: ["num_hidden_layers": .int(7)])
        try ParallelModels.run(family, .init(sizes: [.pipeline: 3])) { rank in
            let stage = try #require(rank.part as? DecoderModel).stage
            #expect(stage.layers == [0..<2, 2..<5, 5..<7][stage.index])
            let names = rank.part.parameters.map(\.name)
            #expect(names.contains("model.embed_tokens.weight") == stage.isFirst)
            #expect(names.contains("lm_head.weight") == stage.isLast)
        }
        let error = #expect(throws: ModelError.self) {
            try ParallelModels.run(.init(name: "Llama"), .init(sizes: [.pipeline: 4])) { _ in }
        }
        #expect(error?.description.contains("3 layers cannot be 4 stages") == true)
    }
}
