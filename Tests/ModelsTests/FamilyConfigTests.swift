import Checkpoints
import Models
import OrderedCollections
import TensorCore
import Testing

/// Settings that change the architecture are either done or refused by name.
@Suite struct FamilyConfigTests {
    func message(_ name: String, _ settings: [String: JSONValue]) throws -> String? {
        do { _ = try FamilyTests.Family(name: name, settings: settings).model() } catch { return "\(error)" }
        return nil
    }

    @Test(arguments: [
        ("Llama", ["hidden_act": JSONValue.string("swoosh")], "hidden_act"),
        ("Llama", ["rope_scaling": FamilyTests.rope(["rope_type": .string("foo")])], "rope_scaling: rope_type 'foo'"),
        ("Llama", ["rope_scaling": FamilyTests.rope(["type": .string("foo")])], "'foo'"),
        ("Llama", ["rope_parameters": FamilyTests.rope(["rope_type": .string("foo")])], "rope_parameters"),
        ("Llama", ["rope_scaling": FamilyTests.rope(["type": .string("linear")])], "factor"),
        (
            "Llama", ["rope_scaling": FamilyTests.rope(["type": .string("linear"), "factor": .double(-1)])],
            "factor is -1"
        ),
        ("Llama", ["partial_rotary_factor": .double(0.5)], "partial_rotary_factor"),
        ("Mistral", ["sliding_window": .int(0)], "sliding_window"),
        ("Qwen2", ["layer_types": .array([.string("full_attention")])], "layer_types"),
        (
            "Qwen3", ["layer_types": .array((0..<3).map { _ in .string("chunked_attention") })], "chunked_attention"
        ),
        ("Qwen3", ["layer_types": .array((0..<3).map { _ in .string("sliding_attention") })], "sliding_window"),
        ("Gemma2", ["use_bidirectional_attention": .bool(true)], "use_bidirectional_attention"),
        ("Gemma2", ["attn_logit_softcapping": .double(0)], "attn_logit_softcapping"),
        ("Phi3", ["rope_scaling": FamilyTests.rope(["type": .string("linear"), "factor": .double(2)])], "linear"),
        (
            "Phi3",
            [
                "rope_scaling": FamilyTests.rope([
                    "type": .string("longrope"), "short_factor": .array([.double(1)]),
                    "long_factor": .array([.double(1)]),
                ])
            ], "short_factor"
        ),
        ("SmolLM3", ["no_rope_layers": .array([.int(1)])], "no_rope_layers"),
        ("Granite", ["logits_scaling": .double(0)], "logits_scaling"),
    ]) func refusals(name: String, settings: [String: JSONValue], words: String) throws {
        let text = try #require(try message(name, settings))
        #expect(text.contains(words) && text.contains("config.json"), "\(text)")
    }

    /// A null is a setting; a missing key takes the class's default.
    @Test func absentAndNullDiffer() throws {
        #expect(try FamilyTests.Family(name: "Gemma2").model().logitsTransform.softCap == 30)
        let none = FamilyTests.Family(name: "Gemma2", settings: ["final_logit_softcapping": .null])
        #expect(try none.model().logitsTransform == .identity)
        let heads = FamilyTests.Family(name: "Mistral", settings: ["num_key_value_heads": .null])
        #expect(try heads.model().shape.keyValueHeads == 4)
    }

    // MARK: - Frequencies that depend on the length

    static let long = FamilyTests.Family(
        name: "Phi3",
        settings: [
            "original_max_position_embeddings": .int(10),
            "rope_scaling": FamilyTests.rope([
                "type": .string("longrope"),
                "short_factor": .array([.double(1), .double(1.1), .double(1.2), .double(1.3)]),
                "long_factor": .array([.double(2), .double(3), .double(4), .double(8)]),
            ]),
        ])

    func hidden(_ model: any CausalLanguageModel, _ segments: [PackedSegment]) throws -> Tensor {
        var positions: [Int64] = [], ends: [Int] = []
        for segment in segments {
            let start = segment.parent.map { ends[$0] } ?? 0
            positions += (start..<start + segment.length).map(Int64.init)
            ends.append(start + segment.length)
        }
        return try withNoGrad {
            try model.hiddenStates(
                ids: Tensor(Array(FamilyTests.ids.prefix(positions.count))), positions: Tensor(positions),
                attention: PackedAttention(segments: segments))
        }
    }

    /// Each sequence of a pack is rotated by its own length; a shared prefix is refused only where its sequences disagree.
    @Test func longAndShortSequencesShareAPack() throws {
        let model = try Self.long.model()
        #expect(model.shape.rotarySwitch == 10)
        let packed = try hidden(model, RotaryTests.segments([(8, nil), (14, nil)]))
        let short = try hidden(model, RotaryTests.segments([(8, nil)]))
        #expect(try packed.narrowed(0, 0..<8).subtracting(short).abs().max().item() < 1e-4)
        let ids = Array(FamilyTests.ids[8..<22])
        let alone = try withNoGrad {
            try model.hiddenStates(
                ids: Tensor(ids), positions: Tensor.arange(0..<14),
                attention: PackedAttention(segments: [PackedSegment(start: 0, length: 14)]))
        }
        #expect(try packed.narrowed(0, 8..<22).subtracting(alone).abs().max().item() < 1e-4)
        _ = try hidden(model, RotaryTests.segments([(8, nil), (5, 0), (4, 0)]))
        #expect(throws: ModelError.self) { try hidden(model, RotaryTests.segments([(8, nil), (5, 0), (1, 0)])) }
    }

    @Test func aCachedSequenceDoesNotGrowAcrossTheSwitch() throws {
        let model = try Self.long.model()
        let cache = try KeyValueCache(for: model, slots: 20)
        func decode(_ length: Int) throws {
            _ = try withNoGrad {
                try model.hiddenStates(
                    ids: Tensor([Int64(3)]), positions: Tensor([Int64(length - 1)]),
                    attention: DecodeAttention(
                        cache: cache, slotTable: Tensor((0..<Int32(length)).map { $0 }, shape: [1, length]),
                        lengths: Tensor([Int32(length)]), newSlots: Tensor([Int64(length - 1)])))
            }
        }
        try decode(10)
        #expect(throws: ModelError.self) { try decode(11) }
        try decode(12)  // its prompt was long already
    }
}
