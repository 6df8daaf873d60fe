import Checkpoints
import Foundation
import Models
import TensorCore
import Testing

@Suite struct ScoringModelTests {
    let family = FamilyTests.Family(name: "Qwen2")

    func values(_ model: ScoringModel) throws -> [Float] {
        try model.tokenValues(
            ids: Tensor(FamilyTests.ids), positions: Tensor(FamilyTests.positions),
            attention: PackedAttention(segments: FamilyTests.segments)
        ).values(Float.self)
    }

    @Test func aValueModelGivesANumberATokenAndItsBiasCounts() throws {
        let folder = try ScoringFolder(family)
        defer { folder.remove() }
        let model = try ModelRegistry.loadScoring(folder.source("ForTokenClassification", labels: 1, bias: true))
        #expect(
            model.reading == .everyToken && model.parameters.suffix(2).map(\.name) == ["score.weight", "score.bias"])
        try withNoGrad {
            let hidden = try model.hiddenStates(
                ids: Tensor(FamilyTests.ids), positions: Tensor(FamilyTests.positions),
                attention: PackedAttention(segments: FamilyTests.segments))
            let expected = try hidden.linear(model.score.weight, bias: model.score.bias).flattened().values(Float.self)
            let got = try values(model)
            #expect(zip(got, expected).allSatisfy { abs($0 - $1) < 1e-5 } && got.count == FamilyTests.ids.count)
        }
    }

    @Test func aHeadIsNeverMadeSilently() throws {
        let folder = NSTemporaryDirectory() + "fledge-critic-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let language = try family.model()
        try HuggingFaceExporter.write(
            tensors: language.namedTensors().map { ($0.name, try $0.tensor.contiguous()) }, config: family.config(),
            to: folder + "/language")
        let source = try ModelSource.open(folder + "/language")
        #expect(throws: ModelError.self) { try ModelRegistry.loadScoring(source) }

        let zero = try ModelRegistry.loadScoring(source, newHead: .init())
        #expect(try values(zero).allSatisfy { $0 == 0 })
        let drawn = try ModelRegistry.loadScoring(source, newHead: .init(standardDeviation: 0.5, seed: 3))
        #expect(drawn.architecture == "Qwen2ForTokenClassification")

        // What is exported is what was there.
        try HuggingFaceExporter.write(
            tensors: drawn.namedTensors().map { ($0.name, try $0.tensor.contiguous()) },
            config: source.config.withHead(architecture: drawn.architecture, labels: drawn.labels),
            to: folder + "/critic")
        let back = try ModelRegistry.loadScoring(ModelSource.open(folder + "/critic"))
        #expect(try values(back) == values(drawn))
        #expect(try values(back).contains { $0 != 0 })
    }

    @Test func gradientsReachTheBodyAndTheHead() throws {
        let folder = try ScoringFolder(family)
        defer { folder.remove() }
        let model = try ModelRegistry.loadScoring(folder.source("ForSequenceClassification", labels: 1, bias: false))
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        try withGrad {
            try model.sequenceScores(
                ids: Tensor(FamilyTests.ids), positions: Tensor(FamilyTests.positions), segments: FamilyTests.segments
            ).sum().backward()
        }
        for parameter in model.parameters {
            #expect(try #require(try parameter.tensor.grad()).abs().max().item() > 0, "\(parameter.name)")
        }
    }
}
