import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Checkpoints

/// GPTQ and AWQ checkpoints: `scripts/peers/packed_fixture.py` packed the files by the libraries' formulas.
@Suite struct PackedWeightsTests {
    static let fixtures = Golden.packageRoot.appending(path: "Tests/Fixtures/packed", directoryHint: .isDirectory).path
    static let cases = [
        "gptq", "gptq-v2", "gptq-act-order", "gptq-8-bits", "gptq-one-group", "gptq-short-group", "awq",
    ]

    @Test(arguments: cases) func weightsAreWhatTheCodesStandFor(name: String) throws {
        let source = try ModelSource.open(Self.fixtures + "/" + name)
        let expected = try source.tensor(named: "expected", dtype: .float32)
        #expect(source.tensorNames == ["expected", "layer.weight"])
        #expect(try source.shape(of: "layer.weight") == [16, 64])
        #expect(try source.storedType(of: "layer.weight") == nil && source.contains("layer.weight"))
        #expect(try source.tensor(named: "layer.weight", dtype: .float32).equals(expected))
        #expect(
            try source.tensor(named: "layer.weight", dtype: .bfloat16).equals(expected.to(dtype: .bfloat16)))
        // A view of a larger parameter, between others, as a fused projection fills it.
        let whole = try Tensor.zeros([32, 64]), plain = try Tensor.zeros([16, 64])
        try source.load([
            TensorDestination(name: "layer.weight", tensor: whole.narrowed(0, 8..<24)),
            TensorDestination(name: "expected", tensor: plain),
        ])
        #expect(try whole.narrowed(0, 8..<24).equals(expected) && plain.equals(expected))
        #expect(try whole.narrowed(0, 0..<8).abs().sum().item() == 0)
        #expect(try whole.narrowed(0, 24..<32).abs().sum().item() == 0)
    }

    @Test func whatIsTrainedOrExportedIsNoLongerPacked() throws {
        let source = try ModelSource.open(Self.fixtures + "/gptq")
        #expect(!source.config.has("quantization_config"))
        #expect(source.packed?.format.summary == "GPTQ, 4 bits, groups of 32")
        let error = #expect(throws: CheckpointError.self) { try source.requireTrainableWeights() }
        #expect(error?.code == .unsupported)
        #expect("\(try #require(error))".contains("lora_rank"))
        let folder = try TemporaryFolder()
        try folder.write(ModelSourceTests.config, "config.json")
        try SafetensorsWriter.write([("w", Tensor([1] as [Float]))], to: folder.path + "/model.safetensors")
        try ModelSource.open(folder.path).requireTrainableWeights()
    }

    /// Another `quantization_config` over the same tensors is another model.
    @Test func theDigestCoversTheFormat() throws {
        let folder = try copy(of: "gptq")
        let digest = try ModelSource.open(folder.path).digest
        try rewrite(folder) { $0.replacing("\"bits\": 4", with: "\"bits\": 4, \"checkpoint_format\": \"gptq_v2\"") }
        #expect(try ModelSource.open(folder.path).digest != digest)
    }

    @Test(arguments: [
        (#"{"quant_method": "bitsandbytes", "load_in_4bit": true}"#, "bitsandbytes"),
        (#"{"quant_method": "fp8"}"#, "fp8"), (#"{"quant_method": "compressed-tensors"}"#, "compressed-tensors"),
        (#"{"bits": 4}"#, "quant_method"), (#"{"quant_method": "gptq", "bits": 3, "group_size": 32}"#, "3 bits"),
        (#"{"quant_method": "awq", "bits": 8, "group_size": 32}"#, "8 bits"),
        (#"{"quant_method": "gptq", "group_size": 32}"#, "bits"),
        (#"{"quant_method": "gptq", "bits": 4, "group_size": 0}"#, "group"),
        (#"{"quant_method": "gptq", "bits": 4, "group_size": -7}"#, "group"),
        (#"{"quant_method": "gptq", "bits": 4, "group_size": 9223372036854775807}"#, "group"),
        (#"{"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"}"#, "marlin"),
        (#"{"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}"#, "gemv"),
        (#"{"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": false}"#, "zero_point"),
        (#"{"quant_method": 4}"#, "quant_method"), (#""gptq""#, "quantization_config"),
        // Fits the file's shapes nowhere.
        (#"{"quant_method": "gptq", "bits": 4, "group_size": 16}"#, "group_size"),
        (#"{"quant_method": "gptq", "bits": 8, "group_size": 32}"#, "layer"),
        (#"{"quant_method": "awq", "bits": 4, "group_size": 32}"#, "layer"),
    ])
    func otherFormatsAreRefused(settings: String, word: String) throws {
        let folder = try copy(of: "gptq")
        try folder.write(
            #"{"architectures": ["LlamaForCausalLM"], "quantization_config": \#(settings)}"#, "config.json")
        let error = #expect(throws: CheckpointError.self) { try ModelSource.open(folder.path) }
        #expect("\(try #require(error))".contains(word), "\(String(describing: error))")
    }

    /// Tensors that do not fit one another are named.
    @Test func misshapenPartsAreRefused() throws {
        let good = try SafetensorsFile(path: Self.fixtures + "/gptq-act-order/model.safetensors")
        var parts: [String: Tensor] = [:]
        for name in good.tensorNames { parts[name] = try good.tensor(named: name) }
        func refuses(_ name: String, _ tensor: Tensor?, whenRead: Bool = false) throws {
            let folder = try copy(of: "gptq-act-order")
            var changed = parts
            changed[name] = tensor
            try SafetensorsWriter.write(changed.map { ($0.key, $0.value) }, to: folder.path + "/model.safetensors")
            let error = #expect(throws: CheckpointError.self, "\(name)") {
                let source = try ModelSource.open(folder.path)
                if whenRead { _ = try source.tensor(named: "layer.weight", dtype: .float32) }
            }
            #expect("\(try #require(error))".contains("layer"))
        }
        try refuses("layer.qzeros", nil)
        try refuses("layer.scales", nil)
        try refuses("layer.weight", Tensor.zeros([16, 64]))
        try refuses("layer.qweight", Tensor.zeros([8, 16]))
        try refuses("layer.qweight", Tensor.zeros([9, 16], dtype: .int32))
        try refuses("layer.qweight", Tensor.zeros([128], dtype: .int32))
        try refuses("layer.qzeros", Tensor.zeros([2, 3], dtype: .int32))
        try refuses("layer.qzeros", Tensor.zeros([3, 2], dtype: .int32))
        try refuses("layer.scales", Tensor.zeros([2, 15], dtype: .float16))
        try refuses("layer.scales", Tensor.zeros([2, 16], dtype: .int64))
        try refuses("layer.g_idx", Tensor.zeros([63], dtype: .int32))
        try refuses("layer.g_idx", Tensor.zeros([64]))
        let index = try #require(parts["layer.g_idx"])
        for bad in [-1, 2, Int(Int32.max)] {
            let changed = try index.cloned()
            try changed.narrowed(0, 5..<6).fill(Double(bad))
            try refuses("layer.g_idx", changed, whenRead: true)
        }
    }

    /// Old GPTQ checkpoints carry biases of zero that no layer asks for.
    @Test func biasesOfZeroAreSpare() throws {
        for (value, isSpare) in [(0.0, true), (0.5, false)] {
            let folder = try copy(of: "gptq")
            let good = try SafetensorsFile(path: Self.fixtures + "/gptq/model.safetensors")
            var parts = try good.tensorNames.map { ($0, try good.tensor(named: $0)) }
            parts.append(("layer.bias", try Tensor.full([16], value, dtype: .float16)))
            try SafetensorsWriter.write(parts, to: folder.path + "/model.safetensors")
            let source = try ModelSource.open(folder.path)
            #expect(source.contains("layer.bias"))
            #expect(source.tensorNames.contains("layer.bias") != isSpare)
        }
    }

    private func copy(of name: String) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        for file in ["config.json", "model.safetensors"] {
            try folder.write(bytes(of: Self.fixtures + "/\(name)/\(file)"), file)
        }
        return folder
    }

    private func rewrite(_ folder: TemporaryFolder, _ change: (String) -> String) throws {
        let text = String(decoding: try bytes(of: folder.path + "/config.json"), as: UTF8.self)
        try folder.write(change(text), "config.json")
    }
}
