import Checkpoints
import Foundation
import OrderedCollections
import TensorCore
import TestSupport
import Testing

@testable import Models

/// Adapters that PEFT wrote, and what PEFT computes with them: `scripts/peers/lora_fixture.py` made the files.
@Suite struct PEFTFolderTests {
    static let fixtures = Golden.packageRoot.appending(path: "Tests/Fixtures/lora", directoryHint: .isDirectory).path
    static let cases = ["all_linear", "attention_rslora"]

    func base() throws -> any CausalLanguageModel { try ModelRegistry.load(ModelSource.open(Self.fixtures + "/base")) }

    @Test(arguments: cases) func logitsGradientsAndMergedWeightsArePEFTs(name: String) throws {
        let folder = Self.fixtures + "/" + name
        let expected = try SafetensorsFile(path: folder + "/expected.safetensors")
        let model = try base()
        let lora = try PEFTFolder(folder).load(into: model)
        for parameter in lora.parameters { try parameter.tensor.setRequiresGrad() }
        let ids = try expected.tensor(named: "input_ids").values(Int64.self)
        let wanted = try expected.tensor(named: "logits"), below = try expected.tensor(named: "base_logits")
        // The adapter matters in this fixture.
        #expect(try distance(wanted, below) > 0.1)
        try withGrad {
            let logits = try model.logits(ids)
            #expect(try distance(logits, wanted) < 2e-5 * wanted.abs().max().item())
            let count = ids.count - 1
            let targets = try Tensor(Array(ids.dropFirst()), shape: [count, 1])
            let loss = try logits.narrowed(0, 0..<count).logSoftmax(1).gathered(1, targets).mean().negated()
            #expect(abs(try loss.item() - expected.tensor(named: "loss").item()) < 1e-5)
            try loss.backward()
        }
        #expect(try distance(lora.disabled { try withNoGrad { try model.logits(ids) } }, below) < 2e-5)
        var seen = 0
        for parameter in lora.parameters {
            for (name, grad) in try parameter.split(#require(try parameter.tensor.grad())) {
                let wanted = try expected.tensor(named: "grad.base_model.model." + name)
                #expect(try distance(grad, wanted) < 1e-4 * wanted.abs().max().item() + 1e-8, "\(name)")
                seen += 1
            }
        }
        #expect(seen == expected.tensorNames.count { $0.hasPrefix("grad.") })
        let merged = try model.mergedTensors()
        for name in expected.tensorNames where name.hasPrefix("merged.") {
            let mine = try #require(merged.first { "merged." + $0.name == name }).tensor
            #expect(try distance(mine, expected.tensor(named: name)) < 1e-6, "\(name)")
        }
    }

    @Test(arguments: cases) func whatIsSavedIsWhatWasLoaded(name: String) throws {
        let model = try base()
        let lora = try PEFTFolder(Self.fixtures + "/" + name).load(into: model)
        try inTemporaryFolder { folder in
            try PEFTFolder.write(lora, base: "the/base", to: folder + "/saved")
            let theirs = try SafetensorsFile(path: Self.fixtures + "/\(name)/adapter_model.safetensors")
            let mine = try SafetensorsFile(path: folder + "/saved/adapter_model.safetensors")
            #expect(Set(mine.tensorNames) == Set(theirs.tensorNames))
            for name in theirs.tensorNames {
                #expect(try mine.tensor(named: name).equals(theirs.tensor(named: name)), "\(name)")
            }
            let before = try PEFTConfig(folder: Self.fixtures + "/" + name),
                after = try PEFTConfig(folder: folder + "/saved")
            #expect(Set(before.targetModules ?? []) == Set(after.targetModules ?? []))
            #expect(before.rank == after.rank && before.alpha == after.alpha && before.usesRSLoRA == after.usesRSLoRA)
            #expect(before.excludeModules == after.excludeModules)
            let again = try base()
            let other = try PEFTFolder(folder + "/saved").load(into: again)
            for (a, b) in zip(lora.parameters, other.parameters) { #expect(try a.tensor.equals(b.tensor)) }
            #expect(other.modules == lora.modules)
            #expect(throws: CheckpointError.self) { try PEFTFolder.write(lora, base: nil, to: folder + "/saved") }
        }
    }

    // MARK: - Refusals

    @Test(arguments: [
        ("use_dora", JSONValue.bool(true), "DoRA"),
        ("modules_to_save", .array([.string("lm_head")]), "modules trained whole"),
        ("layers_pattern", .string("layers"), "pattern"), ("layers_to_transform", .array([.int(0)]), "by number"),
        ("bias", .string("all"), "biases"), ("lora_bias", .bool(true), "biases"),
        ("rank_pattern", .object(["q_proj": .int(2)]), "one rank"),
        ("alpha_pattern", .object(["q_proj": .int(2)]), "one alpha"),
        ("fan_in_fan_out", .bool(true), "transposed"), ("init_lora_weights", .string("pissa"), "base model"),
        ("target_parameters", .array([.string("experts.gate_up_proj")]), "experts"),
        ("peft_type", .string("IA3"), "kind LORA"), ("task_type", .string("SEQ_CLS"), "CAUSAL_LM"),
        ("target_modules", .string(".*_proj"), "regular expression"), ("target_modules", .null, "missing"),
        ("r", .string("eight"), "integer"), ("r", .int(0), "not positive"),
        ("some_new_method", .bool(true), "not supported"),
    ])
    func featuresThatAreNotSupportedAreNamed(key: String, value: JSONValue, message: String) throws {
        let error = try loadError(config: { $0[key] = value })
        let text = "\(try #require(error))"
        #expect(text.contains(message), "\(text)")
        if value != .int(0) { #expect(text.contains("adapter_config.json") && text.contains("'\(key)'"), "\(text)") }
    }

    @Test func tensorsThatDoNotFitAreNamed() throws {
        let name = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"
        func text(_ edit: (inout [String: Tensor]) throws -> Void) throws -> String {
            "\(try #require(try loadError(tensors: edit)))"
        }
        #expect(try text { $0[name] = nil }.contains("missing: \(name)"))
        let extra = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
        #expect(try text { $0[extra] = try Tensor.zeros([3, 16]) }.contains(extra))
        let shape = try text { $0[name] = try Tensor.zeros([3, 15]) }
        #expect(shape.contains("[3, 15]") && shape.contains("[3, 16]") && shape.contains(name))
    }

    @Test func picklesAreRefused() throws {
        try inTemporaryFolder { folder in
            try copy("attention_rslora/adapter_config.json", to: folder + "/adapter_config.json")
            try Data([0x80, 2]).write(to: URL(fileURLWithPath: folder + "/adapter_model.bin"))
            let error = #expect(throws: CheckpointError.self) { try PEFTFolder(folder).load(into: base()) }
            #expect(error?.code == .pickle && error?.message.contains("adapter_model.bin") == true)
            try FileManager.default.removeItem(atPath: folder + "/adapter_model.bin")
            #expect(throws: CheckpointError.self) { try PEFTFolder(folder).load(into: base()) }
        }
    }

    func loadError(
        config change: (inout JSONObject) -> Void = { _ in },
        tensors edit: (inout [String: Tensor]) throws -> Void = { _ in }
    ) throws -> (any Error)? {
        let source = Self.fixtures + "/attention_rslora"
        return try inTemporaryFolder { folder in
            var config = try ModelConfig(path: source + "/adapter_config.json")
            change(&config.object)
            try Data(config.text.utf8).write(to: URL(fileURLWithPath: folder + "/adapter_config.json"))
            let file = try SafetensorsFile(path: source + "/adapter_model.safetensors")
            var tensors: [String: Tensor] = [:]
            for name in file.tensorNames { tensors[name] = try file.tensor(named: name) }
            try edit(&tensors)
            try SafetensorsWriter.write(
                tensors.sorted { $0.key < $1.key }.map { (name: $0.key, tensor: $0.value) },
                to: folder + "/adapter_model.safetensors")
            let model = try base()
            do { try PEFTFolder(folder).load(into: model) } catch {
                #expect(model.adapter == nil)
                return error
            }
            return nil
        }
    }

    func copy(_ name: String, to path: String) throws {
        try FileManager.default.copyItem(atPath: Self.fixtures + "/" + name, toPath: path)
    }

    func inTemporaryFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
        let folder = NSTemporaryDirectory() + "fledge-lora-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        return try body(folder)
    }
}
