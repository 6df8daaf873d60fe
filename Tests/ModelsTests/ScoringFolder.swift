import Checkpoints
import Foundation
import Models
import TensorCore

/// A folder of checkpoints of one family with random weights, for heads that are not a language model's.
struct ScoringFolder {
    let path = NSTemporaryDirectory() + "fledge-scoring-\(UUID().uuidString)"
    let family: FamilyTests.Family

    init(_ family: FamilyTests.Family) throws { self.family = family }

    func remove() { try? FileManager.default.removeItem(atPath: path) }

    /// The checkpoint of another head over the family's body.
    func source(_ suffix: String, labels: Int, bias: Bool) throws -> ModelSource {
        let model = try family.model()
        var tensors = try model.namedTensors().filter { $0.name != "lm_head.weight" }
            .map { (name: $0.name, tensor: try $0.tensor.contiguous()) }
        let generator = try RandomGenerator(seed: 9)
        tensors.append(("score.weight", try Tensor.randomNormal([labels, model.shape.hidden], generator: generator)))
        if bias { tensors.append(("score.bias", try Tensor.randomNormal([labels], generator: generator))) }
        let stem = family.name == "Gemma3" ? "Gemma3Text" : family.name
        let config = family.config().withHead(architecture: stem + suffix, labels: labels)
        try HuggingFaceExporter.write(tensors: tensors, config: config, to: path + "/" + suffix)
        return try ModelSource.open(path + "/" + suffix)
    }
}
