import TensorCore
import Testing

@testable import Models

/// Quantised copies of a model's projections: when they are used, and what they hold.
@Suite struct QuantizationTests {
    static let ids: [Int64] = [3, 14, 15, 9, 26, 5]
    static let schemes: [WeightQuantization] = [.int8PerChannel, .int4(group: 32)]

    /// The model with every weight that has a copy replaced by what the copy stands for.
    func dequantised(_ model: LlamaModel, _ other: LlamaModel) throws {
        for (mine, theirs) in zip(model.projections, other.projections) {
            guard let quantized = mine.quantized else { continue }
            try theirs.weight.copy(from: quantized.dequantized())
        }
    }

    @Test(arguments: schemes) func samplingComputesWithTheCopies(scheme: WeightQuantization) throws {
        let model = try loraModel(bias: true), other = try loraModel(bias: true)
        try withNoGrad {
            let plain = try model.logits(Self.ids)
            try model.quantizeProjections(scheme, rows: 4)
            try dequantised(model, other)
            let sampled = try model.samplingQuantized { try model.logits(Self.ids) }
            #expect(try distance(sampled, other.logits(Self.ids)) < 1e-4)
            #expect(try distance(sampled, plain) > 1e-3)
            #expect(model.isQuantized && model.quantizedBytes.copies > 0)
            #expect(model.output.quantized == nil)
            model.unpackProjections()
            #expect(!model.isQuantized)
            #expect(try model.samplingQuantized { try model.logits(Self.ids) }.equals(plain))
        }
    }

    /// Outside of sampling, and wherever gradients are recorded, the weights themselves are read.
    @Test func nothingElseSeesTheCopies() throws {
        let model = try loraModel()
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        let plain = try withNoGrad { try model.logits(Self.ids) }
        try model.quantizeProjections(.int4(), rows: 4)
        for projection in model.projections where projection.quantized == nil { projection.unpack() }
        #expect(try withNoGrad { try model.logits(Self.ids) }.equals(plain))
        let recorded = try model.samplingQuantized { try withGrad { try model.logits(Self.ids) } }
        #expect(try recorded.detached().equals(plain))
        // A call that fails leaves nothing turned on.
        struct Failure: Error {}
        #expect(throws: Failure.self) { try model.samplingQuantized { throw Failure() } }
        #expect(try withNoGrad { try model.logits(Self.ids) }.equals(plain))
    }

    @Test(arguments: [false, true]) func anAdapterIsBesideTheCopiesOrInThem(merging: Bool) throws {
        let model = try loraModel(), other = try loraModel()
        let lora = try model.addRandomAdapter(LoRASettings(rank: 4))
        try withNoGrad {
            try model.quantizeProjections(.int8PerChannel, rows: 4, merging: merging)
            try dequantised(model, other)
            if !merging { try other.addRandomAdapter(LoRASettings(rank: 4)) }
            let wanted = try other.logits(Self.ids)
            #expect(try distance(model.samplingQuantized { try model.logits(Self.ids) }, wanted) < 1e-3)
            // With the adapter off, copies that hold it are not used.
            let base = try lora.disabled { try model.logits(Self.ids) }
            let sampled = try lora.disabled { try model.samplingQuantized { try model.logits(Self.ids) } }
            #expect(try merging == sampled.equals(base))
        }
    }

    @Test func theHeadIsRoundedWhenAsked() throws {
        let model = try loraModel()
        try model.quantizeProjections(.int8PerChannel, rows: 4, includingHead: true)
        #expect(model.projections.allSatisfy { $0.quantized != nil })
    }

    /// Without copies nothing is lost; with 8 bits little, with 4 more.
    @Test func lossIsMeasured() throws {
        let model = try loraModel()
        func loss(_ scheme: WeightQuantization?) throws -> QuantizationLoss {
            if let scheme { try model.quantizeProjections(scheme, rows: 8) } else { model.unpackProjections() }
            var loss = QuantizationLoss()
            try loss.add((0..<20).map { Int32($0 * 11 % 29) }, model: model)
            try loss.add((0..<9).map { Int32($0 * 5 % 29) }, model: model)
            return loss
        }
        let none = try loss(nil), eight = try loss(.int8PerChannel), four = try loss(.int4())
        #expect(none.tokens == 27 && none.meanDivergence == 0 && none.maxLogProbDifference == 0 && none.agreement == 1)
        #expect(none.perplexity == none.quantizedPerplexity && none.perplexity > 1)
        #expect(eight.meanDivergence > 0 && eight.meanDivergence < four.meanDivergence)
        #expect(eight.meanLogProbDifference < four.meanLogProbDifference)
        #expect(eight.meanLogProbDifference <= eight.maxLogProbDifference)
        #expect(eight.perplexity == none.perplexity && eight.quantizedPerplexity != none.perplexity)
    }
}
