import Checkpoints
import Foundation
import Models
import TensorCore
import TestSupport
import Testing

/// Reward and value models against `transformers`, where the golden folder has any: `scripts/peers/models` makes them.
@Suite struct ScoringGoldenTests {
    struct Fixture: CustomTestStringConvertible, Sendable {
        let folder: URL
        var testDescription: String { folder.lastPathComponent }

        static let all: [Fixture] = {
            guard let root = Golden.directory("scoring") else { return [] }
            let folders =
                (try? FileManager.default.contentsOfDirectory(at: root, includingPropertiesForKeys: nil)) ?? []
            return folders.sorted { $0.path < $1.path }.map(Fixture.init)
        }()
    }

    @Test(arguments: Fixture.all) func scores(fixture: Fixture) throws {
        let expected = try SafetensorsFile(path: fixture.folder.path + "/expected.safetensors")
        let model = try ModelRegistry.loadScoring(ModelSource.open(fixture.folder.path))
        var ids: [Int64] = [], positions: [Int64] = [], segments: [PackedSegment] = []
        var wanted: [Tensor] = []
        for index in 0... where expected.contains("input_ids.\(index)") {
            let sequence = try expected.tensor(named: "input_ids.\(index)").values(Int64.self)
            segments.append(PackedSegment(start: ids.count, length: sequence.count))
            ids += sequence
            positions += (0..<sequence.count).map(Int64.init)
            wanted.append(try expected.tensor(named: "scores.\(index)"))
            if !expected.contains("input_ids.\(index + 1)") { break }
        }
        let got = try withNoGrad {
            switch model.reading {
            case .lastToken:
                try model.sequenceScores(ids: Tensor(ids), positions: Tensor(positions), segments: segments)
            case .everyToken:
                try model.scores(
                    ids: Tensor(ids), positions: Tensor(positions), attention: PackedAttention(segments: segments))
            }
        }
        let all = try model.reading == .lastToken ? Tensor.stack(wanted) : Tensor.concatenate(wanted)
        #expect(got.shape == all.shape)
        let bound = try 1e-4 * Swift.max(1, all.abs().max().item())
        #expect(try got.subtracting(all).abs().max().item() <= bound)
    }
}
