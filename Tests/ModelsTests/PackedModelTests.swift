import Checkpoints
import Foundation
import OrderedCollections
import TensorCore
import TestSupport
import Testing

@testable import Models

/// A whole model from a GPTQ checkpoint: fused projections are filled part by part, and the rest is read as ever.
@Suite struct PackedModelTests {
    static let base = Golden.packageRoot.appending(path: "Tests/Fixtures/lora/base", directoryHint: .isDirectory).path

    /// Four-bit codes of a tensor, by output and input.
    func code(_ seed: Int, _ output: Int, _ input: Int) -> Int { (seed * 7 + output * 5 + input * 3) % 16 }

    /// The base with every linear layer packed: zero 8, and scales 0.01 · (1 + output % 4).
    func write(to folder: String) throws -> [String: Tensor] {
        let source = try ModelSource.open(Self.base)
        var config = source.config
        config.object["quantization_config"] = .object([
            "quant_method": .string("gptq"), "bits": .int(4), "group_size": .int(-1), "sym": .bool(true),
        ])
        var tensors: [(String, Tensor)] = [], expected: [String: Tensor] = [:]
        for (seed, name) in source.tensorNames.enumerated() {
            let tensor = try source.tensor(named: name, dtype: .float32)
            guard name.hasSuffix("_proj.weight") else {
                tensors.append((name, tensor))
                continue
            }
            let outputs = tensor.size(0), inputs = tensor.size(1), stem = String(name.dropLast(7))
            var words = [Int32](repeating: 0, count: inputs / 8 * outputs)
            var values = [Float](repeating: 0, count: outputs * inputs)
            for output in 0..<outputs {
                for input in 0..<inputs {
                    let code = code(seed, output, input)
                    words[input / 8 * outputs + output] |= Int32(truncatingIfNeeded: code << (input % 8 * 4))
                    values[output * inputs + input] = Float(code - 8) * (Float(Float16(0.01)) * Float(1 + output % 4))
                }
            }
            let scales = (0..<outputs).map { Float(Float16(0.01)) * Float(1 + $0 % 4) }
            tensors.append((stem + ".qweight", try Tensor(words, shape: [inputs / 8, outputs])))
            tensors.append((stem + ".qzeros", try Tensor.full([1, outputs / 8], Double(0x7777_7777), dtype: .int32)))
            tensors.append((stem + ".scales", try Tensor(scales, shape: [1, outputs])))
            expected[name] = try Tensor(values, shape: [outputs, inputs])
        }
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(config.text.utf8).write(to: URL(fileURLWithPath: folder + "/config.json"))
        try SafetensorsWriter.write(tensors, to: folder + "/model.safetensors")
        return expected
    }

    @Test func everyWeightIsInItsPlace() throws {
        try PEFTFolderTests().inTemporaryFolder { folder in
            let expected = try write(to: folder + "/packed")
            #expect(!expected.isEmpty)
            let source = try ModelSource.open(folder + "/packed"), base = try ModelSource.open(Self.base)
            let model = try ModelRegistry.load(source)
            for (name, tensor) in try model.namedTensors() {
                let wanted = try expected[name] ?? base.tensor(named: name, dtype: .float32)
                #expect(try tensor.equals(wanted), "\(name)")
            }
            try ModelRegistry.check(
                source.config, architecture: source.architecture, weights: CheckpointWeights(source))
            // Adapted it can be; the frozen weights stay.
            try model.addRandomAdapter(LoRASettings(rank: 2))
            #expect(model.trainableParameters.count == model.adapter?.parameters.count)
            // Exported it is a plain checkpoint.
            try HuggingFaceExporter.write(
                tensors: model.namedTensors().map { ($0.name, try $0.tensor.detached()) }, config: source.config,
                to: folder + "/plain")
            let plain = try ModelSource.open(folder + "/plain")
            #expect(plain.packed == nil && !plain.config.has("quantization_config"))
            let again = try ModelRegistry.load(plain)
            for (mine, theirs) in zip(again.parameters, model.parameters) {
                #expect(try mine.tensor.equals(theirs.tensor), "\(mine.name)")
            }
        }
    }
}
