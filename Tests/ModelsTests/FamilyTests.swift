import Checkpoints
import Models
import OrderedCollections
import TensorCore
import Testing

/// Every family with small random weights: the ways to run one computation agree.
@Suite struct FamilyTests {
    struct Family: Sendable, CustomTestStringConvertible {
        let name: String
        var settings: [String: JSONValue] = [:]
        var note = ""
        var testDescription: String { name + (note.isEmpty ? "" : ", " + note) }

        func config(_ suffix: String = "ForCausalLM") -> ModelConfig {
            var json: JSONObject = [
                "vocab_size": .int(61), "hidden_size": .int(32), "num_hidden_layers": .int(3),
                "num_attention_heads": .int(4), "num_key_value_heads": .int(2), "intermediate_size": .int(40),
                "head_dim": .int(8), "max_position_embeddings": .int(128), "rms_norm_eps": .double(1e-5),
            ]
            for (key, value) in settings { json[key] = value }
            json["architectures"] = .array([.string(name + suffix)])
            return ModelConfig(json)
        }

        func weights(_ dtype: DType) throws -> ParameterBuilder {
            ParameterBuilder(
                source: try RandomWeights(seed: 5, standardDeviation: 0.25), dtype: dtype, device: .cpu)
        }

        func model(dtype: DType = .float32) throws -> any CausalLanguageModel {
            let make = try #require(ModelRegistry.families[name + "ForCausalLM"])
            return try make(config(), weights(dtype))
        }
    }

    static func rope(_ values: [String: JSONValue]) -> JSONValue {
        var object: JSONObject = [:]
        for (key, value) in values { object[key] = value }
        return .object(object)
    }

    static let families: [Family] = [
        Family(name: "Llama"),
        Family(
            name: "Llama", settings: ["rope_scaling": rope(["type": .string("dynamic"), "factor": .double(4)])],
            note: "dynamic"),
        Family(
            name: "Llama",
            settings: [
                "rope_scaling": rope([
                    "type": .string("yarn"), "factor": .double(4), "original_max_position_embeddings": .int(32),
                ])
            ], note: "yarn"),
        Family(name: "Mistral", settings: ["sliding_window": .int(6)]),
        Family(
            name: "Qwen2",
            settings: ["use_sliding_window": .bool(true), "sliding_window": .int(5), "max_window_layers": .int(1)]),
        Family(name: "Qwen3", settings: ["attention_bias": .bool(true)]),
        Family(
            name: "Gemma2",
            settings: [
                "sliding_window": .int(6), "attn_logit_softcapping": .double(2), "final_logit_softcapping": .double(3),
                "query_pre_attn_scalar": .int(7),
            ]),
        Family(name: "Gemma3", settings: ["sliding_window": .int(4), "sliding_window_pattern": .int(2)]),
        Family(
            name: "Phi3",
            settings: [
                "sliding_window": .int(7), "partial_rotary_factor": .double(0.5),
                "original_max_position_embeddings": .int(64),
                "rope_scaling": rope([
                    "type": .string("su"), "short_factor": .array([.double(1), .double(1.2)]),
                    "long_factor": .array([.double(2), .double(4)]),
                ]),
            ]),
        Family(name: "Olmo2"),
        Family(
            name: "SmolLM3",
            settings: [
                "no_rope_layer_interval": .int(2), "use_sliding_window": .bool(true), "sliding_window": .int(5),
            ]),
        Family(
            name: "Granite",
            settings: [
                "logits_scaling": .double(3), "residual_multiplier": .double(0.4), "embedding_multiplier": .double(5),
                "attention_multiplier": .double(0.3),
            ]),
        Family(
            name: "Mixtral", settings: ["num_local_experts": .int(5), "sliding_window": .int(7)]),
        Family(
            name: "Qwen3Moe",
            settings: [
                "num_experts": .int(7), "num_experts_per_tok": .int(3), "moe_intermediate_size": .int(12),
                "decoder_sparse_step": .int(2), "norm_topk_prob": .bool(true),
            ]),
        Family(name: "DeepseekV3", settings: deepseek.merging(["q_lora_rank": .int(12)]) { $1 }),
        Family(
            name: "DeepseekV3",
            settings: deepseek.merging([
                "q_lora_rank": .null, "attention_bias": .bool(true), "rope_interleave": .bool(false),
                "rope_scaling": rope([
                    "type": .string("yarn"), "factor": .double(4), "original_max_position_embeddings": .int(32),
                    "mscale": .double(1), "mscale_all_dim": .double(1),
                ]),
            ]) { $1 }, note: "yarn"),
    ]

    static let deepseek: [String: JSONValue] = [
        "num_key_value_heads": .int(4), "n_routed_experts": .int(8), "n_shared_experts": .int(2),
        "moe_intermediate_size": .int(12), "num_experts_per_tok": .int(3), "n_group": .int(4), "topk_group": .int(2),
        "kv_lora_rank": .int(10), "qk_rope_head_dim": .int(4), "qk_nope_head_dim": .int(6), "v_head_dim": .int(8),
        "first_k_dense_replace": .int(1),
    ]

    // A prompt, two answers that share it, one of which forks, and a sequence on its own.
    static let segments = RotaryTests.segments([(11, nil), (7, 0), (4, 0), (3, 2), (5, 2), (9, nil)])
    static let ids: [Int64] = (0..<39).map { ($0 * 23 + 7) % 61 }
    static let positions: [Int64] = {
        var positions: [Int64] = [], ends: [Int] = []
        for segment in segments {
            let start = segment.parent.map { ends[$0] } ?? 0
            positions += (start..<start + segment.length).map(Int64.init)
            ends.append(start + segment.length)
        }
        return positions
    }()

    /// The tokens of the pack that make up the sequence that ends with a segment.
    static func sequence(_ index: Int) -> [Int] {
        let segment = segments[index]
        return (segment.parent.map(sequence) ?? []) + (segment.start..<segment.start + segment.length)
    }

    func alone(_ model: any SequenceModel, _ ids: [Int64]) throws -> Tensor {
        try model.hiddenStates(
            ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
            attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
    }

    func expectClose(_ a: Tensor, _ b: Tensor, _ tolerance: Double, _ what: Comment) throws {
        #expect(a.shape == b.shape, what)
        let size = Swift.max(1, try b.abs().max().item())
        #expect(try a.subtracting(b).abs().max().item() <= tolerance * size, what)
    }

    @Test(arguments: families) func aPackGivesWhatEachSequenceGivesAlone(family: Family) throws {
        let model = try family.model()
        try withNoGrad {
            let packed = try model.hiddenStates(
                ids: Tensor(Self.ids), positions: Tensor(Self.positions),
                attention: PackedAttention(segments: Self.segments))
            for leaf in [1, 3, 4, 5] {
                let tokens = Self.sequence(leaf)
                try expectClose(
                    packed.indexSelect(0, Tensor(tokens.map(Int64.init))), alone(model, tokens.map { Self.ids[$0] }),
                    2e-5, "sequence \(leaf)")
            }
        }
    }

    @Test(arguments: families) func decodingThroughTheCacheGivesTheFullForward(family: Family) throws {
        let model = try family.model()
        let sequences = [1, 3, 5].map { Self.sequence($0).map { Self.ids[$0] } }, prompt = 6, steps = 3
        let cache = try KeyValueCache(for: model, slots: sequences.reduce(0) { $0 + $1.count })
        let starts = sequences.indices.map { index in sequences.prefix(index).reduce(0) { $0 + $1.count } }
        try withNoGrad {
            _ = try model.hiddenStates(
                ids: Tensor(sequences.flatMap { $0.prefix(prompt) }),
                positions: Tensor(sequences.flatMap { _ in (0..<prompt).map(Int64.init) }),
                attention: PrefillAttention(
                    cache: cache,
                    segments: sequences.indices.map { PackedSegment(start: $0 * prompt, length: prompt) },
                    slots: Tensor(starts.flatMap { start in (0..<prompt).map { Int64(start + $0) } })))
            for step in 0..<steps {
                let position = prompt + step, width = position + 1
                let decoded = try model.hiddenStates(
                    ids: Tensor(sequences.map { $0[position] }),
                    positions: Tensor([Int64](repeating: Int64(position), count: sequences.count)),
                    attention: DecodeAttention(
                        cache: cache,
                        slotTable: Tensor(
                            starts.flatMap { start in (0..<width).map { Int32(start + $0) } },
                            shape: [sequences.count, width]),
                        lengths: Tensor([Int32](repeating: Int32(width), count: sequences.count)),
                        newSlots: Tensor(starts.map { Int64($0 + position) })))
                for (row, sequence) in sequences.enumerated() {
                    let full = try alone(model, Array(sequence.prefix(width)))
                    try expectClose(
                        decoded.narrowed(0, row..<row + 1), full.narrowed(0, position..<position + 1), 2e-5,
                        "row \(row), step \(step)")
                }
            }
        }
    }

    /// Two samples whose prompt lies in the cache once, longer than the windows.
    @Test(arguments: families) func decodingAfterASharedPromptGivesTheFullForward(family: Family) throws {
        let model = try family.model()
        let segments = RotaryTests.segments([(9, nil), (2, 0), (4, 0)])
        let cache = try KeyValueCache(for: model, slots: 20)
        let ids = Array(Self.ids.prefix(15)), prompt = Array(ids[0..<9])
        var rows = [prompt + ids[9..<11], prompt + ids[11..<15]]
        var slots: [[Int32]] = [Array(0..<9) + [9, 10], Array(0..<9) + [11, 12, 13, 14]]
        try withNoGrad {
            _ = try model.hiddenStates(
                ids: Tensor(ids), positions: Tensor((0..<9).map(Int64.init) + [9, 10] + [9, 10, 11, 12]),
                attention: PrefillAttention(cache: cache, segments: segments, slots: Tensor.arange(0..<15)))
            for step in 0..<2 {
                for row in 0..<2 {
                    rows[row].append(Int64(17 + 5 * step + row))
                    slots[row].append(Int32(15 + 2 * step + row))
                }
                let widest = slots.map(\.count).max() ?? 0
                let table = slots.flatMap { $0 + [Int32](repeating: 0, count: widest - $0.count) }
                let decoded = try model.hiddenStates(
                    ids: Tensor(rows.map { $0[$0.count - 1] }), positions: Tensor(rows.map { Int64($0.count - 1) }),
                    attention: DecodeAttention(
                        cache: cache, slotTable: Tensor(table, shape: [2, widest]),
                        lengths: Tensor(slots.map { Int32($0.count) }),
                        newSlots: Tensor(slots.map { Int64($0[$0.count - 1]) })))
                for row in 0..<2 {
                    let full = try alone(model, rows[row]), last = rows[row].count - 1
                    try expectClose(
                        decoded.narrowed(0, row..<row + 1), full.narrowed(0, last..<last + 1), 2e-5,
                        "row \(row), step \(step)")
                }
            }
        }
    }

    @Test(arguments: families) func logProbabilitiesAreThoseOfTheLogitsAndCheckpointingChangesNothing(
        family: Family
    ) throws {
        let model = try family.model()
        let targets = try Tensor(Self.ids.reversed().map { $0 })
        for parameter in model.parameters { try parameter.tensor.setRequiresGrad() }
        func gradients(chunked: Bool, checkpointing: Bool) throws -> [Tensor] {
            model.checkpointing = checkpointing ? .full : .none
            let logProbs = try withGrad {
                let hidden = try model.hiddenStates(
                    ids: Tensor(Self.ids), positions: Tensor(Self.positions),
                    attention: PackedAttention(segments: Self.segments))
                if chunked { return try model.tokenLogProbs(hidden: hidden, targets: targets, chunk: 5).logProbs }
                return try model.logits(hidden).logSoftmax(1).gathered(1, targets.unsqueezed(1)).squeezed(1)
            }
            try logProbs.sum().backward()
            let all = try model.parameters.map { try #require(try $0.tensor.grad()).cloned() }
            for parameter in model.parameters { try parameter.tensor.setGrad(nil) }
            return [try logProbs.detached()] + all
        }
        let plain = try gradients(chunked: false, checkpointing: false)
        let chunked = try gradients(chunked: true, checkpointing: false)
        let again = try gradients(chunked: true, checkpointing: true)
        for (index, name) in (["log-probabilities"] + model.parameters.map(\.name)).enumerated() {
            try expectClose(chunked[index], plain[index], 2e-5, "\(name)")
            #expect(try again[index].subtracting(chunked[index]).abs().max().item() == 0, "\(name), checkpointed")
        }
    }

    @Test(arguments: families) func scoringModelsAnswerAtTheLastToken(family: Family) throws {
        let folder = try ScoringFolder(family)
        defer { folder.remove() }
        let reward = try ModelRegistry.loadScoring(folder.source("ForSequenceClassification", labels: 3, bias: false))
        #expect(reward.labels == 3 && reward.reading == .lastToken)
        let scores = try withNoGrad {
            try reward.sequenceScores(
                ids: Tensor(Self.ids), positions: Tensor(Self.positions), segments: Self.segments)
        }
        for leaf in [1, 3, 4, 5] {
            let tokens = Self.sequence(leaf).map { Self.ids[$0] }
            let hidden = try withNoGrad { try alone(reward, tokens) }
            let expected = try hidden.narrowed(0, tokens.count - 1..<tokens.count).linear(reward.score.weight)
            try expectClose(scores.narrowed(0, leaf..<leaf + 1), expected, 2e-5, "sequence \(leaf)")
        }
        #expect(throws: ModelError.self) {
            try reward.tokenValues(
                ids: Tensor([1]), positions: Tensor([0]),
                attention: PackedAttention(segments: [PackedSegment(start: 0, length: 1)]))
        }
    }
}
