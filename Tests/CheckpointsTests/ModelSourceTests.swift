import Checkpoints
import Foundation
import OrderedCollections
import TensorCore
import TestSupport
import Testing

@Suite struct ModelSourceTests {
    static let config = """
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4, "mystery": {"kept": 1e-05}}
        """

    private func code(_ path: String) -> CheckpointError.Code? {
        #expect(throws: CheckpointError.self) { try ModelSource.open(path) }?.code
    }

    @Test func opensAFolder() throws {
        let folder = try TemporaryFolder()
        try folder.write(Self.config, "config.json")
        let weight = try Tensor([1, 2, 3, 4] as [Float], shape: [2, 2])
        try SafetensorsWriter.write([("w", weight)], to: folder.path + "/model.safetensors")
        let source = try ModelSource.open(folder.path)
        #expect(source.architecture == "LlamaForCausalLM")
        #expect(try source.tensor(named: "w", dtype: .bfloat16).dtype == .bfloat16)
        #expect(try source.tensor(named: "w", dtype: .float32).equals(weight))
        #expect(try ModelSource.open(folder.path).digest == source.digest)
        let error = #expect(throws: CheckpointError.self) { try source.tensor(named: "v", dtype: .float32) }
        #expect(error?.code == .missingTensor)
        try SafetensorsWriter.write(
            [("w", Tensor([1, 2, 3, 5] as [Float], shape: [2, 2]))], to: folder.path + "/model.safetensors")
        #expect(try ModelSource.open(folder.path).digest != source.digest)
    }

    @Test func opensAFolderWithOneGGUF() throws {
        let folder = try TemporaryFolder()
        try folder.write(GGUFBuilder.llama().build(), "model.gguf")
        #expect(try ModelSource.open(folder.path).gguf != nil)
    }

    @Test func saysWhatIsWrongWithAModel() throws {
        let folder = try TemporaryFolder()
        #expect(code(folder.path + "/absent") == .notFound)
        #expect(code(folder.path) == .notFound)
        try folder.write(Self.config, "config.json")
        #expect(code(folder.path) == .notFound)
        try folder.write([0x80, 2], "pytorch_model.bin")
        #expect(code(folder.path) == .pickle)
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
        try folder.write(pointer, "model.safetensors")
        #expect(code(folder.path) == .gitLFSPointer)
        try folder.write("{", "config.json")
        #expect(code(folder.path) == .malformed)
        #expect(code(try folder.write(pointer, "a.gguf")) == .gitLFSPointer)
        #expect(code(try folder.write("GGML....", "b.gguf")) == .malformed)
        #expect(code(try folder.write("GG", "c.gguf")) == .truncated)
        #expect(code(try folder.write("", "d.gguf")) == .truncated)
        #expect(code(try folder.write([0x80, 2, 0, 0, 0], "weights")) == .pickle)
        #expect(code(try folder.write([0x50, 0x4B, 3, 4, 0], "weights.pt")) == .pickle)
        #expect(code(try folder.write("x", "w.safetensors")) == .unsupported)
        let whole = GGUFBuilder.llama().build()
        for length in stride(from: 0, to: whole.count, by: 7) {
            let error = #expect(throws: CheckpointError.self) {
                try ModelSource.open(folder.write(Array(whole[..<length]), "cut.gguf"))
            }
            #expect(error?.code == .truncated || error?.code == .malformed)
        }
    }
}

@Suite struct HuggingFaceExporterTests {
    private func tensors() throws -> [(name: String, tensor: Tensor)] {
        try (0..<5).map { ("model.w\($0)", try Tensor([Float](repeating: Float($0), count: 100))) }
    }

    private func config() throws -> ModelConfig {
        let folder = try TemporaryFolder()
        return try ModelConfig(path: folder.write(ModelSourceTests.config, "config.json"))
    }

    @Test(arguments: [(Int.max, 1), (800, 3), (1, 5)])
    func writesWhatModelSourceReads(_ maxShardBytes: Int, _ shards: Int) throws {
        let folder = try TemporaryFolder()
        let out = folder.path + "/deep/export"
        let extra = HuggingFaceExporter.CompanionFile(name: "tokenizer.json", bytes: Array("{}".utf8))
        try HuggingFaceExporter.write(
            tensors: tensors(), config: config(), tokenizerFiles: [extra], to: out, maxShardBytes: maxShardBytes)
        let source = try ModelSource.open(out)
        #expect(source.tensorNames == (try tensors().map(\.name)))
        for (name, tensor) in try tensors() {
            #expect(try source.tensor(named: name, dtype: .float32).equals(tensor))
        }
        #expect(source.config.object["mystery"]?.objectValue?["kept"] == .double(1e-5))
        #expect(try source.config.string("dtype") == "float32")
        let names = try FileManager.default.contentsOfDirectory(atPath: out)
        #expect(names.filter { $0.hasSuffix(".safetensors") }.count == shards)
        #expect(try bytes(of: out + "/tokenizer.json") == extra.bytes)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path + "/deep") == ["export"])
    }

    @Test func leavesNothingBehindWhenItFails() throws {
        let folder = try TemporaryFolder()
        let out = folder.path + "/export"
        let full = FaultyFileSystem(.diskFull(afterBytes: 700))
        #expect(throws: CheckpointError.self) {
            try HuggingFaceExporter.write(tensors: tensors(), config: config(), to: out, fileSystem: full)
        }
        let error = #expect(throws: CheckpointError.self) {
            try HuggingFaceExporter.write(
                tensors: tensors(), config: config(), to: out, fileSystem: FaultyFileSystem(.free(bytes: 1000)))
        }
        #expect(error?.code == .diskFull && error?.freeBytes == 1000)
        let path = HuggingFaceExporter.CompanionFile(name: "../x", bytes: [])
        #expect(throws: CheckpointError.self) {
            try HuggingFaceExporter.write(tensors: tensors(), config: config(), tokenizerFiles: [path], to: out)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
        try folder.write("x", "export")
        #expect(throws: CheckpointError.self) {
            try HuggingFaceExporter.write(tensors: tensors(), config: config(), to: out)
        }
    }

    @Test func copiesEverythingOfATokenizer() throws {
        let folder = try TemporaryFolder()
        let source = folder.path + "/source"
        try FileManager.default.createDirectory(
            atPath: source + "/additional_chat_templates", withIntermediateDirectories: true)
        let names = [
            "tokenizer.json", "tokenizer.model", "qwen.tiktoken", "chat_template.jinja", "generation_config.json",
            "additional_chat_templates/tool_use.jinja",
        ]
        for name in names + ["README.md", "pytorch_model.bin", "additional_chat_templates/notes.txt"] {
            try folder.write(name, "source/" + name)
        }
        let out = folder.path + "/export"
        try HuggingFaceExporter.write(
            tensors: tensors(), config: config(), tokenizerFiles: HuggingFaceExporter.companions(in: source), to: out)
        for name in names { #expect(try bytes(of: out + "/" + name) == Array(name.utf8)) }
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: out).sorted()
                == ["additional_chat_templates", "chat_template.jinja", "config.json", "generation_config.json"]
                + ["model.safetensors", "qwen.tiktoken", "tokenizer.json", "tokenizer.model"])
        for name in ["additional_chat_templates/../x", "additional_chat_templates/", "a/b", "..", ".hidden"] {
            let error = #expect(throws: CheckpointError.self) {
                try HuggingFaceExporter.write(
                    tensors: tensors(), config: config(), tokenizerFiles: [.init(name: name, bytes: [])],
                    to: folder.path + "/other")
            }
            #expect(error?.code == .unsafePath)
        }
    }

    @Test func leavesOutATiedHead() throws {
        let folder = try TemporaryFolder()
        var config = try config()
        config.object["tie_word_embeddings"] = .bool(true)
        let tied = try tensors() + [("lm_head.weight", try Tensor([1] as [Float]))]
        try HuggingFaceExporter.write(tensors: tied, config: config, to: folder.path + "/export")
        #expect(try ModelSource.open(folder.path + "/export").tensorNames == tensors().map(\.name))
    }
}

@Suite struct ModelFolderGoldenTests {
    /// Every golden model opens, and survives export unchanged.
    @Test func opensAndExportsEveryModel() throws {
        guard let folder = Golden.directory("models") else { return }
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() {
            let path = folder.path + "/" + name
            guard FileManager.default.fileExists(atPath: path + "/config.json") else { continue }
            let source = try ModelSource.open(path)
            #expect(try source.config.int("hidden_size") > 0, "\(name)")
            let expected = try SafetensorsFile(path: path + "/expected.safetensors")
            #expect(!expected.tensorNames.isEmpty)
            for layer in try source.config.strings("layer_types").map({ Set($0) }) ?? ["full_attention"] {
                #expect(try source.config.rope(layerType: layer).theta > 1, "\(name) \(layer)")
            }
            guard case .safetensors(let model) = source.storage else {
                Issue.record("\(name) is no folder of safetensors")
                continue
            }
            let out = try TemporaryFolder()
            let tensors = try model.tensorNames.map { (name: $0, tensor: try model.tensor(named: $0)) }
            try HuggingFaceExporter.write(
                tensors: tensors, config: source.config, tokenizerFiles: HuggingFaceExporter.companions(in: path),
                to: out.path + "/" + name, maxShardBytes: 100_000)
            let again = try SafetensorsModel(folder: out.path + "/" + name)
            for (tensorName, tensor) in tensors {
                #expect(try again.tensor(named: tensorName).equals(tensor), "\(name) \(tensorName)")
            }
        }
    }
}
