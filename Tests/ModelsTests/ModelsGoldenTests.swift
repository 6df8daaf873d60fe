import Checkpoints
import Foundation
import Models
import OrderedCollections
import TensorCore
import TestSupport
import Testing

/// Every family that is known here, against what `transformers` computes from the same checkpoint.
@Suite struct ModelsGoldenTests {
    struct Fixture: CustomTestStringConvertible, Sendable {
        let folder: URL
        var testDescription: String { folder.lastPathComponent }

        static let all: [Fixture] = {
            guard let root = Golden.directory("models") else { return [] }
            let folders =
                (try? FileManager.default.contentsOfDirectory(at: root, includingPropertiesForKeys: nil)) ?? []
            return folders.sorted { $0.path < $1.path }.filter { folder in
                guard let config = try? ModelConfig(path: folder.path + "/config.json") else { return false }
                return ModelRegistry.families[config.architecture ?? ""] != nil
            }.map(Fixture.init)
        }()
    }

    struct Expected {
        let json: [String: Any]
        let tensors: SafetensorsFile
        init(_ folder: URL) throws {
            let data = try Data(contentsOf: folder.appending(path: "expected.json"))
            json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
            tensors = try SafetensorsFile(path: folder.path + "/expected.safetensors")
        }
        func tolerance(_ name: String) throws -> (relative: Double, absolute: Double) {
            let all = try #require(json["tolerance"] as? [String: Any])
            let one = try #require(all[name] as? [String: Double])
            return (one["rtol"] ?? 0, one["atol"] ?? 0)
        }
    }

    func expectClose(
        _ actual: Tensor, _ expected: Tensor, _ tolerance: (relative: Double, absolute: Double), _ what: String
    ) throws {
        let wanted = try expected.to(dtype: .float64), got = try actual.detached().to(dtype: .float64)
        #expect(got.shape == wanted.shape, "\(what)")
        guard got.shape == wanted.shape else { return }
        // Largest tensors' own scale counts for the relative part, as rounding noise does.
        let bound = try wanted.abs().max().item() * tolerance.relative + tolerance.absolute
        let worst = try got.subtracting(wanted).abs().max().item()
        #expect(worst <= bound, "\(what): off by \(worst), at most \(bound)")
    }

    func ids(_ tensor: Tensor) throws -> [Int64] { try tensor.values(Int64.self) }

    func forward(
        _ model: any CausalLanguageModel, _ ids: [Int64], observe: ((Int, Tensor) -> Void)? = nil
    ) throws -> Tensor {
        try model.hiddenStates(
            ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
            attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]), observe: observe)
    }

    @Test(arguments: Fixture.all) func logitsAndHiddenStates(fixture: Fixture) throws {
        let expected = try Expected(fixture.folder)
        let model = try ModelRegistry.load(ModelSource.open(fixture.folder.path))
        for index in 0... where expected.tensors.contains("input_ids.\(index)") {
            let ids = try ids(expected.tensors.tensor(named: "input_ids.\(index)"))
            var states: [Int: Tensor] = [:]
            let logits = try withNoGrad { try model.logits(forward(model, ids) { states[$0] = $1 }) }
            try expectClose(
                logits, expected.tensors.tensor(named: "logits.\(index)"), expected.tolerance("logits"),
                "logits \(index)")
            for (layer, state) in states where expected.tensors.contains("hidden_states.\(index).\(layer)") {
                try expectClose(
                    state, expected.tensors.tensor(named: "hidden_states.\(index).\(layer)"),
                    expected.tolerance("hidden_states"), "hidden state \(index).\(layer)")
            }
            if !expected.tensors.contains("input_ids.\(index + 1)") { break }
        }
    }

    /// All sequences in one pack give what each gives alone; loss and gradients are transformers'.
    @Test(arguments: Fixture.all) func lossAndGradientsOfThePackedBatch(fixture: Fixture) throws {
        let expected = try Expected(fixture.folder)
        let model = try ModelRegistry.load(ModelSource.open(fixture.folder.path))
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        var packed: [Int64] = [], positions: [Int64] = [], predictors: [Int64] = [], targets: [Int64] = []
        var segments: [PackedSegment] = []
        for index in 0... {
            guard expected.tensors.contains("input_ids.\(index)") else { break }
            let sequence = try ids(expected.tensors.tensor(named: "input_ids.\(index)"))
            segments.append(PackedSegment(start: packed.count, length: sequence.count))
            predictors += (0..<sequence.count - 1).map { Int64(packed.count + $0) }
            targets += sequence.dropFirst()
            packed += sequence
            positions += (0..<sequence.count).map(Int64.init)
        }
        try withGrad {
            let hidden = try model.hiddenStates(
                ids: Tensor(packed), positions: Tensor(positions), attention: PackedAttention(segments: segments))
            let (logProbs, _) = try model.tokenLogProbs(
                hidden: hidden.indexSelect(0, Tensor(predictors)), targets: Tensor(targets), chunk: 7)
            let loss = try logProbs.mean().negated()
            let wanted = try #require(expected.json["loss"] as? Double)
            let bound = try expected.tolerance("loss")
            #expect(abs(try loss.item() - wanted) <= bound.absolute + bound.relative * abs(wanted))
            try loss.backward()
        }
        let norms = try #require(expected.json["grad_norms"] as? [String: Double])
        var seen: Set<String> = []
        for parameter in model.parameters {
            let grad = try #require(try parameter.tensor.grad())
            for (name, part) in try parameter.split(grad) {
                seen.insert(name)
                if let norm = norms[name] {
                    let bound = try expected.tolerance("grad_norms")
                    let got = try Tensor.l2Norm([part.contiguous()])
                    #expect(abs(got - norm) <= bound.absolute + 10 * bound.relative * norm, "gradient norm of \(name)")
                }
                if expected.tensors.contains("grad." + name) {
                    try expectClose(
                        part, expected.tensors.tensor(named: "grad." + name), expected.tolerance("grad"),
                        "gradient of \(name)")
                }
            }
        }
        // A tied output projection has no gradient of its own.
        #expect(Set(norms.keys).subtracting(seen).subtracting(["lm_head.weight"]).isEmpty)
    }

    @Test(arguments: Fixture.all) func greedyTokensThroughTheCache(fixture: Fixture) throws {
        let expected = try Expected(fixture.folder)
        let model = try ModelRegistry.load(ModelSource.open(fixture.folder.path))
        let generate = try #require(expected.json["generate"] as? [String: Any])
        let prompt = try #require(generate["prompt"] as? [Int]), wanted = try #require(generate["tokens"] as? [Int])
        let cache = try KeyValueCache(for: model, slots: prompt.count + wanted.count)
        var tokens: [Int] = []
        try withNoGrad {
            var hidden = try model.hiddenStates(
                ids: Tensor(prompt.map(Int64.init)), positions: Tensor.arange(0..<prompt.count),
                attention: PrefillAttention(
                    cache: cache, segments: [PackedSegment(start: 0, length: prompt.count)],
                    slots: Tensor.arange(0..<prompt.count)))
            hidden = try hidden.narrowed(0, prompt.count - 1..<prompt.count)
            while true {
                tokens.append(try model.logits(hidden).argmax(1).itemInt())
                if tokens.count == wanted.count { break }
                let position = prompt.count + tokens.count - 1
                hidden = try model.hiddenStates(
                    ids: Tensor([Int64(tokens[tokens.count - 1])]), positions: Tensor([Int64(position)]),
                    attention: DecodeAttention(
                        cache: cache, slotTable: Tensor((0...Int32(position)).map { $0 }, shape: [1, position + 1]),
                        lengths: Tensor([Int32(position + 1)]), newSlots: Tensor([Int64(position)])))
            }
        }
        #expect(tokens == wanted)
    }

    /// A model that is written back is the checkpoint it was read from, tensor by tensor and setting by setting.
    @Test(arguments: Fixture.all) func anExportIsTheCheckpointAgain(fixture: Fixture) throws {
        let source = try ModelSource.open(fixture.folder.path)
        // Experts stored as one tensor leave one by one: MixtureOfExpertsTests checks that.
        guard !source.tensorNames.contains(where: { $0.hasSuffix(".experts.gate_up_proj") }) else { return }
        let dtype: DType = try source.config.optionalString("dtype") == "bfloat16" ? .bfloat16 : .float32
        let model = try ModelRegistry.load(source, dtype: dtype)
        let folder = NSTemporaryDirectory() + "fledge-golden-export-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try HuggingFaceExporter.write(
            tensors: model.namedTensors().map { ($0.name, try $0.tensor.contiguous()) }, config: source.config,
            to: folder)
        let back = try ModelSource.open(folder)
        #expect(Set(back.tensorNames) == Set(source.tensorNames))
        for name in source.tensorNames {
            let (before, after) = (
                try source.tensor(named: name, dtype: dtype), try back.tensor(named: name, dtype: dtype)
            )
            #expect(before.shape == after.shape, "\(name)")
            #expect(
                try before.to(dtype: .float32).subtracting(after.to(dtype: .float32)).abs().max().item() == 0, "\(name)"
            )
        }
        for (key, value) in source.config.object where key != "dtype" && key != "torch_dtype" {
            #expect(back.config.object[key] == value, "\(key)")
        }
    }
}
