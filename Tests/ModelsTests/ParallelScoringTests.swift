import Checkpoints
import Collectives
import Models
import TensorCore
import Testing

@Suite struct ParallelScoringTests {
    /// The checkpoint is read from its folder, by each rank the parts that it holds.
    @Test(arguments: ParallelModels.dense)
    func valuesAndTheirGradientsAreThoseOfOneProcess(layout: ParallelModels.Layout) throws {
        let family = FamilyTests.Family(name: "Qwen2"), folder = try ScoringFolder(family)
        defer { folder.remove() }
        let path = try folder.source("ForTokenClassification", labels: 1, bias: true).path
        try ParallelModels.run(family, layout) { rank in
            let source = try ModelSource.open(path)
            let whole = try ModelRegistry.loadScoring(source)
            let part = try ModelRegistry.loadScoring(source, parallel: rank.context)
            func loss(_ model: ScoringModel) throws -> Tensor {
                for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
                return try withGrad {
                    let values = try model.tokenValues(
                        ids: Tensor(FamilyTests.ids), positions: Tensor(FamilyTests.positions),
                        attention: PackedAttention(segments: FamilyTests.segments))
                    let loss = try values.squared().mean()
                    try loss.backward()
                    return try loss.detached()
                }
            }
            #expect(try ParallelModels.difference(loss(part), loss(whole)) < 1e-5)
            try withNoGrad { try ParallelModels.compareGradients(part, whole, rank.mesh) }
        }
    }
}
